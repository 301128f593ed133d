"""Functions that take a model and return another one."""
