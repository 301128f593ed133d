"""Shared test setup: one compilation cache, eight simulated devices and fast compilation.

Compilation dominates the time of the suite. Settings that child processes must inherit are
environment variables; settings that they must not inherit are jax settings. There is still one
default device: only a layout of eight devices uses them all. Test configs set `devices: 1`, because
`build` uses all devices by default.
"""

import gc
import os
import pathlib

import jax
import psutil
import pytest
from jaxtyping import config as jaxtyping_config

_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"
# bytes of memory after which a worker drops its compiled programs
_ROOM = max(2 << 30, psutil.virtual_memory().total // 6)
_HURRIED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_SHARED = {
    "JAX_COMPILATION_CACHE_DIR": str(_CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ.update(_SHARED)
gc.set_threshold(100_000, 50, 100)  # tracing makes many short-lived objects: 4 % of the time
# glibc's default. With it kdjax.train.malloc returns what _forget frees to the system.
os.environ.setdefault("MALLOC_ARENA_TEST", "8")
if jax.__version_info__[:2] == (0, 10):  # XLA exits on unknown flags
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_HURRIED}".strip()
for _name, _value in _SHARED.items():  # the jaxtyping plugin has already imported jax
    _current = getattr(jax.config, _name.lower())
    jax.config.update(_name.lower(), type(_current)(_value) if _current is not None else _value)
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """Drop compiled programs between files if they use much memory; the disk cache keeps them."""
    yield
    if psutil.Process().memory_info().rss > _ROOM:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="session")
def _no_latency():
    """Leave out the latency of networks at the end of a run: it takes two compilations each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.cost_table.LATENCY_BATCHES", ())
        yield


@pytest.fixture(scope="session")
def service():
    """Return a bucket service on this machine, to which the clients of this process are led."""
    from tests.faults.bucket import Service

    started = Service()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        patch.setattr("kdjax.report.files.STALL_SECONDS", 3.0)
        yield started


@pytest.fixture
def without_jaxtyping():
    """Disable jaxtyping: these tests check the errors that users without a type checker get."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)
