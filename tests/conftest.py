"""One compilation cache and eight simulated devices for the whole suite.

Most of its time would be compiling otherwise. The default device is still one: only a layout
that asks for eight uses them. Configs of tests say `devices: 1`, because `build` takes all that
there are. It is a jax setting, not an environment variable, so that child processes have one.
"""

import pathlib

import jax
import pytest
from jaxtyping import config as jaxtyping_config

_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def without_jaxtyping():
    """For tests of our own messages, which users without a type checker see."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)
