"""Estimate, before compilation, of the number of sweep members that fit into a device."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.types import Batch, Method, PyTree, State

SHARE = 0.8  # of the free memory; the rest is for the compiler's temporaries


def tree_bytes(tree: PyTree) -> int:
    """Return the bytes of all arrays (or shapes) of a tree."""
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    return sum(int(np.prod(x.shape)) * _itemsize(x.dtype) for x in leaves)


def _itemsize(dtype: Any) -> int:
    return 8 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize


def member_bytes(method: Method, state: State, batch: Batch) -> int:
    """Return the bytes of one member: its state twice, its gradients, its saved activations.

    Args:
      method: the players and their terms.
      state: of one member; shapes suffice (`jax.eval_shape`).
      batch: one prepared batch of full size; shapes suffice.
    """

    def saved(trained: Mapping[str, PyTree], state: State, batch: Batch) -> PyTree:
        def objective(trained: Mapping[str, PyTree]) -> Any:
            params = {**state.params, **trained}
            return method.loss(params, state.stats, batch, state.hparams, state.key, state.step)

        # the leaves of the pullback are the values that the backward pass needs
        return jax.vjp(objective, trained, has_aux=True)[1]

    trained = {role: state.params[role] for role in method.trains}
    residuals = jax.eval_shape(saved, trained, state, batch)
    return 2 * tree_bytes(state) + tree_bytes(trained) + tree_bytes(residuals)


def free_bytes(device: Any) -> int:
    """Return the free memory of a device; simulated devices of a CPU share that of the machine."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of the machine's memory
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return free // jax.local_device_count()


def fitting(members: int, each: int, free: int) -> int:
    """Return the number of members in one program: as few programs as possible, of equal size."""
    most = max(1, int(SHARE * free) // max(each, 1))
    programs = -(-members // most)
    return -(-members // programs)
