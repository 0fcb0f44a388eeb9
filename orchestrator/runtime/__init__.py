"""What a process needs before it computes: device, threads, an open engine."""
