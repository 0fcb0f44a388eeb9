"""Measurements: adapters, hidden states and verdicts in, numbers out. Torch, numpy and scipy only.

``weights`` compares the updates themselves, ``function`` what the models compute, ``statistics`` gives intervals and
tests of accuracies. This module imports nothing, so that importing it is cheap.
"""
