"""What ``plan`` prints: the steps and their cost, the power of the comparison, who runs when."""
