"""The training substrate: one loop, its adapter, what it records, and the state that it goes on from."""
