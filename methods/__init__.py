"""Training objectives on one substrate: tokens and rewards in, adapters out; imports no torch."""

from methods.objectives import METHODS, Method, check

__all__ = ["METHODS", "Method", "check"]
