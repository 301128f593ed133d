"""Memory kept between steps: the default on Linux, unless the user tunes malloc."""

import os
import subprocess
import sys

import pytest

from kdjax.train import malloc

CODE = """
from kdjax.train.malloc import keep_memory
import numpy, resource
before = keep_memory()
def faults():
    numpy.ones(8 << 20)  # 64 MiB, as a step's temporaries
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(before, faults() - first)
"""


TRIMMED = """
from kdjax.train import malloc
import numpy, resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
kept = malloc.keep_memory()
blocks = [numpy.ones(1 << 20) for _ in range(64)]  # of 8 MiB
after = blocks.pop()  # keeps the top of the heap from being free
del blocks
full = resident()
malloc.trim_memory()
empty = resident()
malloc.trim_memory()  # too early: nothing happens
print(kept, full, empty)
"""


def _run(**environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**env, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    enabled, faults = done.stdout.split()
    return enabled == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_pages_are_reused():
    enabled, faults = _run()
    if not enabled:
        pytest.skip("another C library than glibc, or an accelerator's plugin is installed")
    assert faults < 100  # new memory would have one fault a page, 16,384 of 4 KiB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_free_memory_is_returned_now_and_then():
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", TRIMMED]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    kept, full, empty = done.stdout.split()
    if kept != "True":
        pytest.skip("another C library than glibc, or an accelerator's plugin is installed")
    assert int(full) > 500
    assert int(empty) < int(full) - 400


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_tuned_malloc_is_not_changed(name):
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2"
    enabled, _ = _run(**{name: value})
    assert not enabled


def test_malloc_is_not_changed_with_an_accelerator(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_TEST", raising=False)
    monkeypatch.setattr(malloc.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert not malloc.keep_memory()
