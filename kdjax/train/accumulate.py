"""Gradient accumulation: one step over parts of the batch, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.types import Array, Batch, PyTree

# over(stats, part of the batch, key) -> (gradients, new stats, metrics)
Part = Callable[[PyTree, Batch, Array], tuple[PyTree, PyTree, dict[str, Array]]]


def over_parts(
    one: Part, parts: int, stats: PyTree, batch: Batch, key: Array
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Means of gradients and metrics over the parts of a batch; statistics go from part to part.

    Part i holds the rows i, i + parts, i + 2 parts, ... so that a batch that is divided over
    devices is divided alike in each part. All parts must have the same number of real examples, as
    training batches do.

    Args:
      one: gradients, statistics and metrics of a part.
      parts: how many; they must divide the rows.
      stats: before the first part.
      batch: arrays with rows.
      key: each part gets its own.
    """
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]), dict(batch))
    part = lambda i: jax.tree.map(lambda x: x[:, i], split)  # noqa: E731

    def step(carry: tuple[Any, Any], i: Array | int) -> tuple[tuple[Any, Any], None]:
        total, stats = carry
        grads, stats, metrics = one(stats, part(i), jax.random.fold_in(key, i))
        return (jax.tree.map(jnp.add, total, (grads, metrics)), stats), None

    grads, _, metrics = jax.eval_shape(one, stats, part(0), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
    carry = (zeros, stats)
    if jax.default_backend() == "cpu":  # a loop would lose the CPU's fast convolutions
        for i in range(parts):
            # each part waits for the one before, or their activations would live side by side
            carry, split = jax.lax.optimization_barrier((step(carry, i)[0], split))
    else:
        carry, _ = jax.lax.scan(step, carry, jnp.arange(parts))
    total, stats = carry
    grads, metrics = jax.tree.map(lambda x: x / parts, total)
    return grads, stats, metrics
