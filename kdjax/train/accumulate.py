"""Gradient accumulation: one step over several parts of the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.types import Array, Batch, PyTree

# gradients(stats, part of the batch, key) -> (gradients, new stats, metrics)
PartGradients = Callable[[PyTree, Batch, Array], tuple[PyTree, PyTree, dict[str, Array]]]


def over_parts(
    gradients: PartGradients, parts: int, stats: PyTree, batch: Batch, key: Array
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Average gradients and metrics over the parts of a batch; stats pass from part to part.

    Part i has the rows i, i + parts, i + 2 parts, ..., so devices divide each part like the batch.
    Parts count alike. Those of training batches have the same number of examples, but not of real
    tokens or regions.

    Args:
      gradients: of a part, with its stats and metrics.
      parts: their number; it must divide the rows.
      stats: before the first part.
      batch: arrays with rows.
      key: split over the parts.
    """
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]), dict(batch))

    def part(i: Array | int) -> Batch:
        return jax.tree.map(lambda x: x[:, i], split)

    def step(carry: tuple[Any, Any], i: Array | int) -> tuple[tuple[Any, Any], None]:
        total, stats = carry
        grads, stats, metrics = gradients(stats, part(i), jax.random.fold_in(key, i))
        return (jax.tree.map(jnp.add, total, (grads, metrics)), stats), None

    grads, _, metrics = jax.eval_shape(gradients, stats, part(0), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
    carry = (zeros, stats)
    if jax.default_backend() == "cpu":  # unrolled: before jax 0.12 convolutions in a loop are slow
        for i in range(parts):
            # each part waits for the previous one, so that only one part's activations exist
            carry, split = jax.lax.optimization_barrier((step(carry, i)[0], split))
    else:
        carry, _ = jax.lax.scan(step, carry, jnp.arange(parts))
    total, stats = carry
    grads, metrics = jax.tree.map(lambda x: x / parts, total)
    return grads, stats, metrics
