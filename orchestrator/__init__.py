"""What runs, where and in which order. The only package that imports ray."""
