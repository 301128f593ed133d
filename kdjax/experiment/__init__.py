"""The only reader of configs: from a file of `experiments/` to a report."""
