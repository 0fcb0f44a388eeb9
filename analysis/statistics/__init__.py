"""Statistics of accuracies over problems and samples: intervals, tests, pass@k."""
