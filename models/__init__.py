"""What training, measuring and serving stand on alike: a base loaded whole, and its logits from its hidden states."""
