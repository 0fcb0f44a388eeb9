"""What ``plan`` prints of the steps, their cost, and the power of the comparison."""
