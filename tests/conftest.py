"""One compilation cache for the whole suite: most of its time would be compiling otherwise."""

import pathlib

import jax

_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
