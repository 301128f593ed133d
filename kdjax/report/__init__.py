"""What a run leaves behind: a log, tables, plots and one page. Never imports jax."""
