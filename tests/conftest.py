"""One compilation cache, eight simulated devices and a hurried compiler for the whole suite.

Most of its time would be compiling otherwise. What children of tests must share is an environment
variable; what they must not is a jax setting. The default device is still one: only a layout that
asks for eight uses them. Configs of tests say `devices: 1`, because `build` takes all there are.
"""

import gc
import os
import pathlib

import jax
import psutil
import pytest
from jaxtyping import config as jaxtyping_config

_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"
# bytes that a worker may hold before it drops its compiled programs
_ROOM = max(2 << 30, psutil.virtual_memory().total // 6)
_HURRIED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_SHARED = {
    "JAX_COMPILATION_CACHE_DIR": str(_CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ.update(_SHARED)
gc.set_threshold(100_000, 50, 100)  # tracing makes many short-lived objects: 4 % of the suite
# The value is glibc's own. It keeps kdjax.train.malloc from holding what _forget frees.
os.environ.setdefault("MALLOC_ARENA_TEST", "8")
if jax.__version_info__[:2] == (0, 10):  # a later XLA may not know the flags, and ends at that
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_HURRIED}".strip()
for _name, _value in _SHARED.items():  # jax was imported above, by the type checker's plugin
    _current = getattr(jax.config, _name.lower())
    jax.config.update(_name.lower(), type(_current)(_value) if _current is not None else _value)
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """Drop compiled programs between files once they take much memory; the disk keeps them."""
    yield
    if psutil.Process().memory_info().rss > _ROOM:
        jax.clear_caches()


@pytest.fixture
def without_jaxtyping():
    """For tests of our own messages, which users without a type checker see."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)
