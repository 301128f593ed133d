"""Memory between steps on the CPU: kept by the process instead of given back to the system.

A compiled step asks for all its temporaries at its start and frees them at its end. glibc serves
such large pieces by fresh pages of the system, whose first touch costs more than many an operation
on them: a ResNet-8's step takes 1.1 times as long (`benchmarks/allocator.py`).
"""

import ctypes
import importlib.util
import os
import sys

__all__ = ["keep_memory"]

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_memory() -> bool:
    """Tell glibc to keep freed memory for the next step; to be called early.

    Threads that have allocated before keep arenas of their own. The process then holds the most
    memory that it ever needed. Nothing is changed where the user has tuned malloc by the
    environment, without glibc, and where JAX has an accelerator's plugin: arrays are not in the
    host's memory there, and one arena would slow its many threads.

    Returns:
      Whether it was done.
    """
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    plugin = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if tuned or plugin or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    # One arena: those of other threads take large pieces from the system whatever is said.
    return all([mallopt(TRIM_THRESHOLD, -1), mallopt(MMAP_MAX, 0), mallopt(ARENA_MAX, 1)])
