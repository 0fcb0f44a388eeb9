"""Statistics of accuracies over problems, samples and trainings: intervals, tests, pass@k, power."""
