"""What models compute: hidden states, losses and KL with an update attached, and what updates do to inputs."""
