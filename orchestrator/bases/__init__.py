"""Bases that this tool makes or converts itself."""
