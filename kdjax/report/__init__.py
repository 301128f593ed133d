"""Logs, tables, figures and pages of runs. Never imports jax."""
