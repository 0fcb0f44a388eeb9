"""The schema of a study, and how it is read."""
