"""Process setup: device, threads, the open engine."""
