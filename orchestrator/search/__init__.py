"""The search of a learning rate: which trainings a trial consists of, which trial goes on, which rate is chosen."""
