"""One batch on many devices: what each adds to a global mean, and how all see the whole batch."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.types import Array, Batch, Outputs


def mean_share(values: Array, mask: Array, axis_name: str | None) -> Array:
    """This device's part of the masked mean over all devices; the parts sum to the mean."""
    count = jnp.sum(mask)
    if axis_name is not None:
        count = jax.lax.psum(count, axis_name)
    # where, not a product: a masked row may hold NaN
    return jnp.sum(jnp.where(mask > 0, values * mask, 0.0)) / jnp.maximum(count, 1.0)


def gather(tree: Any, axis_name: str | None) -> Any:
    """The global batch on every device."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), tree)


def part(outputs: Outputs, layers: Sequence[str]) -> Outputs:
    """The logits and some features."""
    return Outputs(outputs.logits, {name: outputs.features[name] for name in layers})


def rows(outputs: Outputs, batch: Batch, kind: str = "row") -> Batch:
    """The batch with the labels and the mask of what a network speaks of.

    A classifier speaks of the examples; a detector of regions ("row") and of anchors ("anchor"),
    for which its features bring "<kind>_label" and "<kind>_mask" [rows].
    """
    if f"{kind}_label" not in outputs.features:
        return batch
    return {**batch, **{name: outputs.features[f"{kind}_{name}"] for name in ("label", "mask")}}


def device_key(key: Array, axis_name: str | None) -> Array:
    """A key of its own for each device; consumed."""
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def device_rows(x: Array, axis_name: str | None) -> Array:
    """This device's rows of an array that holds those of all."""
    if axis_name is None:
        return x
    count = len(x) // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * count, count)


def devices(axis_name: str | None) -> int:
    """How many devices divide the batch."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)
