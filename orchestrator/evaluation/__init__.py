"""The evaluation's problems, the models' answers, and what the verdicts say."""
