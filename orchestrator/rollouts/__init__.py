"""Rollouts from their sources into one frozen dataset."""
