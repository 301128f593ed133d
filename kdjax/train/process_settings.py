"""Settings of the whole process: memory, logging, hooks, the compilation cache.

Only the command line applies them; importing kdjax changes none. This file imports no jax, because
memory must be configured before jax starts threads.
"""

import codecs
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from kdjax.train import malloc

_LOG = logging.StreamHandler()  # of kdjax's own lines
_ORBAX = f"{os.sep}orbax{os.sep}"


def configure_process() -> None:
    """Configure this process for a command; a second call changes nothing."""
    malloc.keep_memory()
    codecs.register_error("kdjax", _replace_sign)
    # the shell may have closed them
    sys.stdout, sys.stderr = (stream or io.StringIO() for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="kdjax")
    _LOG.stream = sys.stderr
    _LOG.setFormatter(logging.Formatter("kdjax: %(message)s"))
    logging.getLogger("kdjax").addHandler(_LOG)
    logging.getLogger("kdjax").setLevel(logging.INFO)
    # Orbax logs the traceback of an error in its threads and also raises the error.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)
    warnings.formatwarning = _format_warning
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
    _configure_jax()


def _replace_sign(error: UnicodeError) -> tuple[str, int]:
    """Replace what the encoding of a terminal lacks: "+-" for "±", "?" for other signs."""
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join("+-" if sign == "±" else "?" for sign in signs), error.end


def _format_warning(message: Warning | str, category: type[Warning], *place: Any) -> str:
    """Format a warning as one line; warnings of libraries begin with their category."""
    name = "warning" if category is UserWarning else category.__name__
    return f"{name}: {message}\n"


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    return _ORBAX not in record.pathname


class _UnraisableHook:
    """Ignores errors of reads that orbax abandoned, which are raised at garbage collection."""

    def __init__(self, report: Callable[[Any], object]) -> None:
        """Report all other errors by `report`."""
        self.report = report

    def __call__(self, unraisable: Any) -> None:
        """Report an error, unless it comes from orbax."""
        if not _passes_through_orbax(unraisable.exc_traceback):
            self.report(unraisable)


def _passes_through_orbax(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if _ORBAX in traceback.tb_frame.f_code.co_filename:
            return True
        traceback = traceback.tb_next
    return False


def _configure_jax() -> None:
    """Keep compiled programs between runs, unless the user has chosen a place or none.

    The code of kdjax and of its libraries promotes types and ranks and moves arrays: the settings
    that forbid it are for a user's own code.
    """
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    jax.config.update("jax_transfer_guard", "allow")
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or folder.startswith("~"):  # no home folder
        return
    jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "kdjax", "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def missing_platforms() -> str | None:
    """Return the platforms that JAX was told to use if it cannot; None if it can."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    return None
