"""The computations of the measurement steps, as parallel tasks."""
