"""The training loop, its adapter, its record, and the state from which it resumes."""
