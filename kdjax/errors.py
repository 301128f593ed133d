"""The two ways in which kdjax stops; free of jax, so that reports can import it."""


class UserError(ValueError):
    """A mistake in a config, a file or a flag: one clear line, exit status 2."""


class RunError(RuntimeError):
    """A run that cannot go on (a non-finite loss, say): one clear line, exit status 1."""
