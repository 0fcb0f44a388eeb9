"""Functional comparisons: hidden states, losses and KL with an update attached, and the effect of updates on inputs."""
