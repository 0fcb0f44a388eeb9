"""Shared by training, measuring and serving: loading a base, logits from hidden states, log-probabilities of
completions, reading a PEFT folder."""
