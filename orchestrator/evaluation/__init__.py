"""The evaluation's problems, the models' answers, and statistics of the verdicts."""
