"""What training, measuring and serving stand on alike: a base loaded whole, its logits from its hidden states, the
log-probabilities of completions, and a PEFT folder read."""
