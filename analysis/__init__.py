"""Adapters, hidden states and verdicts in; measurements, tables and figures out.

Pure torch, numpy and scipy. Nothing here knows where or when a step runs, and this face imports none of the heavy
libraries: take what is needed from the rooms: ``weights`` what was done to them, ``function`` what the models compute,
``statistics`` what a number of problems can tell.
"""
