"""The kinds of steps of a search of learning rates: the search itself, and what its trials are judged by."""
