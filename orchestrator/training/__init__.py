"""The training steps around ``methods``."""
