"""The train and reference steps, which call ``methods``."""
