"""Preparation of images with boxes inside the compiled step: mirror, normalise, random bits."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.types import Spec

TASK = "detection"  # of a spec


def prepare_boxes(spec: Spec, *, augment: str = "none") -> Callable[..., dict[str, Any]]:
    """Return the function (batch, key=None) that makes a raw batch ready for a detector.

    "image" becomes float32, normalised, 0 in the padding; with a key and augment "flip" half of the
    images are mirrored, with their boxes. "draw" uint32 [batch] seeds the regions that a detector
    samples. It depends only on the key and the image's id, so it is the same on one device and on
    several.

    Raises:
        UserError: on another augmentation.
    """
    if augment not in ("none", "flip"):
        raise UserError(f"data.augment is {augment!r}; for detection choose none or flip")
    mean, std = (jnp.asarray(x, jnp.float32) for x in (spec.mean, spec.std))

    def prepare(batch: Mapping[str, Any], key: jax.Array | None = None) -> dict[str, Any]:
        image, box, size = (jnp.asarray(batch[name]) for name in ("image", "box", "size"))
        base = jax.random.key(0) if key is None else key
        drawn = jax.vmap(lambda n: jax.random.bits(jax.random.fold_in(base, n), (2,)))(batch["id"])
        if key is not None and augment == "flip":
            image, box = _mirror(image, box, size[:, 1], drawn[:, 0] % 2 == 1)
        rows, columns = (jnp.arange(n) for n in image.shape[1:3])
        inside = (rows[:, None] < size[:, 0, None, None]) & (columns < size[:, 1, None, None])
        pixels = (image.astype(jnp.float32) / spec.scale - mean) / std
        return {
            **batch,
            "image": jnp.where(inside[..., None], pixels, 0.0),
            "box": box,
            "size": size,
            "draw": drawn[:, 1],
            "mask": jnp.asarray(batch.get("mask", jnp.ones(image.shape[0])), jnp.float32),
        }

    return prepare


def _mirror(
    image: jax.Array, box: jax.Array, width: jax.Array, chosen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mirror selected images within their width; padding is not moved."""
    width = jnp.round(width)[:, None]
    columns = jnp.arange(image.shape[2])
    mirrored = jnp.where(columns < width, width.astype(jnp.int32) - 1 - columns, columns)
    columns = jnp.where(chosen[:, None], mirrored, columns)
    left, top, right, bottom = jnp.moveaxis(box, -1, 0)
    mirrored_box = jnp.stack([width - right, top, width - left, bottom], axis=-1)
    image = jnp.take_along_axis(image, columns[:, None, :, None], axis=2)
    return image, jnp.where(chosen[:, None, None], mirrored_box, box)
