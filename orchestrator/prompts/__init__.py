"""Problems and completions as tokens."""
