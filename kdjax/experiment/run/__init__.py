"""Training, the workdir and the results."""
