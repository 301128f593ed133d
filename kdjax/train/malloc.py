"""Memory between steps on the CPU: the process keeps it instead of returning it to the system.

A compiled step allocates all its temporaries at its start and frees them at its end. glibc takes
such large blocks as fresh pages from the system, whose first access costs more than many operations
on them: a ResNet-8's step takes 1.1 times as long (`benchmarks/allocator.py`).
"""

import ctypes
import importlib.util
import os
import sys

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_memory() -> bool:
    """Make glibc keep freed memory for the next step; must be called early.

    Threads that have allocated before keep separate arenas. The process then holds its peak memory.
    Nothing changes if the user has tuned malloc by the environment, without glibc, or with an
    accelerator's plugin of JAX: its arrays are not in the host's memory, and one arena would slow
    its many threads.

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
    # One arena: those of other threads take large blocks from the system despite these settings.
    return all([mallopt(TRIM_THRESHOLD, -1), mallopt(MMAP_MAX, 0), mallopt(ARENA_MAX, 1)])
