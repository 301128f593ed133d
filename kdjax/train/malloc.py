"""Memory between steps on the CPU: the process keeps it instead of returning it to the system.

A compiled step allocates all its temporaries at its start and frees them at its end. For such large
blocks glibc requests new pages from the system, and the first access to a page costs more than many
operations on it: a ResNet-8's step takes 1.1 times as long (`benchmarks/allocator.py`).
"""

import ctypes
import importlib.util
import os
import sys
import time

_TRIM_SECONDS = 10.0
_is_kept, _last_trim = False, 0.0
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def keep_memory() -> bool:
    """Make glibc keep freed memory for the next step; must be called early.

    Threads that have already allocated keep separate arenas. Long-lived blocks split free ones, so
    the process would grow by blocks that fit no longer: `trim_memory` returns them now and then.
    Nothing changes if environment variables tune malloc, without glibc, or with an accelerator's
    plugin of JAX: its arrays are not in the host's memory, and one arena would slow its many
    threads.

    Returns:
      True if glibc was configured.
    """
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    plugin = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if tuned or plugin or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    # One arena: other threads' arenas request large blocks from the system despite these settings.
    global _is_kept
    _is_kept = all([mallopt(TRIM_THRESHOLD, -1), mallopt(MMAP_MAX, 0), mallopt(ARENA_MAX, 1)])
    return _is_kept


def trim_memory() -> None:
    """Return free memory to the system, at most every 10 s, if `keep_memory` keeps it."""
    global _last_trim
    if _is_kept and time.monotonic() - _last_trim > _TRIM_SECONDS:
        ctypes.CDLL(None).malloc_trim(0)
        _last_trim = time.monotonic()
