"""Means and global arrays of a batch that is divided over devices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.types import Array, Batch, Outputs


def local_masked_mean(values: Array, mask: Array, axis_name: str | None) -> Array:
    """Return this device's part of the masked mean over all devices; the parts sum to the mean."""
    # `where`, not a product, because a masked row may hold NaN
    return local_share(jnp.sum(jnp.where(mask > 0, values * mask, 0.0)), mask, axis_name)


def local_share(total: Array, mask: Array, axis_name: str | None) -> Array:
    """Divide this device's masked sum by the sum of the mask over all devices."""
    count = jnp.sum(mask)
    if axis_name is not None:
        count = jax.lax.psum(count, axis_name)
    return total / jnp.maximum(count, 1.0)


def gather(tree: Any, axis_name: str | None) -> Any:
    """Concatenate the arrays of all devices along the batch, on every device."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), tree)


def select_features(outputs: Outputs, layers: Sequence[str]) -> Outputs:
    """Return outputs with the logits and the features of `layers` only."""
    return Outputs(outputs.logits, {name: outputs.features[name] for name in layers})


def rows(outputs: Outputs, batch: Batch, kind: str = "row") -> Batch:
    """Return the batch with the labels and the mask of a network's output rows.

    A classifier has a row for each example; a language model for each token; a detector for each
    region ("row") and each anchor ("anchor"), for which its features hold "<kind>_label" and
    "<kind>_mask" [rows]. A "sequence" is an example.
    """
    if f"{kind}_label" not in outputs.features:
        return batch
    return {**batch, **{name: outputs.features[f"{kind}_{name}"] for name in ("label", "mask")}}


def label_and_mask(batch: Batch) -> Batch:
    """Return the label and the mask of a batch, the entries that losses read."""
    return {name: batch[name] for name in ("label", "mask")}


def device_key(key: Array, axis_name: str | None) -> Array:
    """Return a different key on each device; consumes `key`."""
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def local_rows(x: Array, axis_name: str | None) -> Array:
    """Return this device's rows of an array with the rows of all devices."""
    if axis_name is None:
        return x
    count = len(x) // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * count, count)


def device_count(axis_name: str | None) -> int:
    """Return the number of devices over which the batch is divided."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)
