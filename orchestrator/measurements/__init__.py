"""What the measuring steps compute, shared out over a cluster."""
