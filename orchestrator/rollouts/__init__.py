"""Collects rollouts from their sources into one frozen table."""
