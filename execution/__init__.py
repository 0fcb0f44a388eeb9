"""Runs a graph of steps and stores each result once, under its key. Knows nothing of studies."""
