"""A study checked, resolved, turned into steps, estimated and scheduled."""
