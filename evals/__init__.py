"""Problems in, verdicts out: tasks, engines that answer them, and the grader. Heavy imports live in the leaf
modules."""
