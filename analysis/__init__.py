"""Adapters, hidden states and verdicts in; numbers out.

Pure torch, numpy and scipy. Nothing here knows where or when a step runs, nor how a number is shown (``report``), and
this face imports none of the heavy libraries: take what is needed from the rooms: ``weights`` what was done to them,
``function`` what the models compute, ``statistics`` what a number of problems can tell.
"""
