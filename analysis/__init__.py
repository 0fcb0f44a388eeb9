"""Adapters, hidden states and verdicts in; measurements, tables and figures out.

Pure torch, numpy and scipy. Nothing here knows where or when a step runs, and this face imports none of
the heavy libraries: take what is needed from the leaf modules (``analysis.geometry``, ``analysis.cka``, ...).
"""
