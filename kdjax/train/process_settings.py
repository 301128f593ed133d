"""Settings of the whole process: memory, logging, hooks, the compilation cache.

Only the command line applies them; importing kdjax changes none. This file imports no jax, because
memory must be configured before jax starts threads.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from kdjax.train import malloc

_ORBAX = f"{os.sep}orbax{os.sep}"


def configure_process() -> None:
    """Configure this process for a command; a second call changes nothing."""
    malloc.keep_memory()
    # Orbax logs the traceback of an error in its threads and also raises the error.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
    _cache_compiled_programs()


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


def _cache_compiled_programs() -> None:
    """Cache compiled programs between runs, unless the user has configured the cache."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "kdjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
