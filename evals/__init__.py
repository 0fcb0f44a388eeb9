"""Evaluation: tasks, the engines that answer them, and the grader. Heavy imports are in the leaf modules."""
