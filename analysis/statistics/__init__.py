"""What a number of problems and samples can tell: intervals, tests, pass@k."""
