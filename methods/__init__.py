"""Training objectives on one training loop: tokens and rewards in, adapters out. This module imports no torch."""

from methods.objectives import METHODS, Method, check

__all__ = ["METHODS", "Method", "check"]
