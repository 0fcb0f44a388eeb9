"""Rollouts and the units of training made of them: which a method sees, in which order, and how a step is cut."""
