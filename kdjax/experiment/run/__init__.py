"""Training, its folder and its results."""
