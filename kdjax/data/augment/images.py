"""Preparation of a batch inside the compiled step: gather, crop, flip, normalise.

The host passes raw pixels or only row numbers. All functions are pure, work under jit, vmap (one
key per sweep member) and pmap, and derive the randomness of every example from one key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kdjax.data.augment.boxes import TASK, prepare_boxes
from kdjax.data.augment.resized_crop import central_boxes, resample, resized_crop_flip
from kdjax.errors import UserError
from kdjax.types import Batch, Spec

AUGMENTS = ("none", "flip", "crop", "crop_flip", "resized_crop_flip")
EVAL_CROP = 0.875  # 224 of 256 pixels, after Krizhevsky et al. 2012
PADDING = 4  # pixels on each side; the common choice for 32 x 32 images
_DRAWS = 2**30  # large: its remainder by an odd number of offsets is uniform to 1e-8


def normalize(
    image: Array, mean: Sequence[float], std: Sequence[float], scale: float = 255.0
) -> Array:
    """Return (image / scale - mean) / std in float32.

    Args:
        image: [..., channel] of any dtype.
        mean: per channel, in units of image / scale.
        std: per channel, in units of image / scale, positive.
        scale: 255 for uint8 pixels, 1 for floats.

    >>> normalize(jnp.array([0, 255], jnp.uint8)[:, None], (0.5,), (0.25,)).tolist()
    [[-2.0], [2.0]]
    """
    center = jnp.asarray(mean, jnp.float32)
    spread = jnp.asarray(std, jnp.float32)
    return (image.astype(jnp.float32) / jnp.float32(scale) - center) / spread


def random_crop_flip(
    images: Array,
    key: Array,
    *,
    ids: Array | None = None,
    padding: int = PADDING,
    flip: bool = True,
) -> Array:
    """Shift every image by up to `padding` pixels, filled with zeros, and mirror half of them.

    The offset is uniform over the (2 padding + 1)^2 crops of the zero-padded image, and mirroring
    has probability 1/2, independently for each example. Both depend only on the key and on the
    example's id, so the augmentation of a batch is equal on one device and on several. Zero is a
    black *raw* pixel: normalise afterwards.

    Args:
        images: [batch, height, width, channel], any dtype.
        key: consumed.
        ids: int32 [batch], by default the position in the batch.
        padding: zeros added on each side, >= 0.
        flip: whether to mirror left to right.

    Returns:
        The same shape and dtype.

    Raises:
        ValueError: unless images has four axes and padding >= 0.
    """
    if images.ndim != 4 or padding < 0:
        raise ValueError(
            f"images {images.shape} must be [batch, height, width, channel], padding {padding} >= 0"
        )
    batch, height, width, _ = images.shape
    ids = jnp.arange(batch) if ids is None else ids
    drawn = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (3,), 0, _DRAWS))(ids)
    top, left = ((drawn[:, axis, None] % (2 * padding + 1)) for axis in (0, 1))
    rows = top + jnp.arange(height)
    columns = left + jnp.arange(width)
    if flip:
        mirrored = drawn[:, 2, None] % 2 == 1
        columns = jnp.where(mirrored, columns[:, ::-1], columns)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # one gather: on the CPU 1.6 times faster than a vmapped slice, 13 times than a chain of selects
    example = jnp.arange(batch)[:, None, None]
    index = (example, rows[:, :, None], columns[:, None, :])
    return padded.at[index].get(mode="promise_in_bounds")


def prepare(
    spec: Spec,
    *,
    augment: str = "none",
    padding: int = PADDING,
    eval_crop: float = EVAL_CROP,
    second_view: bool = False,
) -> Callable[..., dict[str, Any]]:
    """Return the function (batch, key=None) that prepares a raw batch for a model.

    The result has "image" (of pairs "view" too) float32 normalised by the spec, "label" int32,
    "mask" float32 (ones if the batch has none) and every other entry of the batch unchanged. It
    augments only with a key, so evaluation uses the same function. A batch with "size" int32
    [batch, 2] has uncropped images, resized to a canvas (see `resized_crop`): a crop reduces
    them to the spec's shape, a random one with a key, else the central one. Other images must have
    that shape. `boxes.prepare_boxes` prepares images with boxes. Batches of text, whose
    spec has `inputs`, are not changed.

    Args:
        spec: of the data set.
        augment: "none", "flip" (mirror), "crop" (random shift), "crop_flip" (shift and mirror) or
            "resized_crop_flip" (random box of 8 to 100 % of the area, resize, mirror).
        padding: the largest shift in pixels.
        eval_crop: side of a canvas' central crop over the image's shorter side.
        second_view: with a key, add "view", a second augmentation of the same images.

    Raises:
        UserError: on an unknown `augment`, any for text, or a second view without one; the
            returned function raises on an image whose shape is not the spec's.
    """
    _check_augment(spec, augment, second_view)
    if spec.task == TASK:
        return prepare_boxes(spec, augment=augment)
    if spec.inputs:
        return _unchanged
    pixels = (spec.mean, spec.std, spec.scale)

    def augmented(batch: Batch, key: Array | None) -> Array:
        image, sizes = jnp.asarray(batch["image"]), batch.get("size")
        if sizes is None and tuple(image.shape[1:]) != tuple(spec.shape):
            raise UserError(
                f"image has shape {image.shape[1:]} but the data set's spec says {spec.shape}"
            )
        if key is not None and augment == "resized_crop_flip":
            image = resized_crop_flip(
                image, key, shape=spec.shape, sizes=sizes, ids=batch.get("id")
            )
        elif sizes is not None:
            image = resample(image, central_boxes(sizes, spec.shape, eval_crop), spec.shape)
        elif key is not None and augment != "none":
            flip, shift = "flip" in augment, padding if "crop" in augment else 0
            image = random_crop_flip(image, key, ids=batch.get("id"), padding=shift, flip=flip)
        return normalize(image, *pixels)

    def prepare_batch(batch: Batch, key: Array | None = None) -> dict[str, Any]:
        image, view = augmented(batch, key), {}
        if spec.latents:
            view = {"view": normalize(jnp.asarray(batch["view"]), *pixels)}
        elif second_view and key is not None:
            view = {"view": augmented(batch, jax.random.fold_in(key, 1))}
        mask = batch["mask"] if "mask" in batch else jnp.ones(image.shape[0], jnp.float32)
        return {
            **{name: value for name, value in batch.items() if name != "size"},
            "image": image,
            **view,
            "label": jnp.asarray(batch["label"], jnp.int32),
            "mask": jnp.asarray(mask, jnp.float32),
        }

    return prepare_batch


def _check_augment(spec: Spec, augment: str, second_view: bool) -> None:
    if augment not in AUGMENTS:
        raise UserError(f"data.augment is {augment!r}; choose from {', '.join(AUGMENTS)}")
    if second_view and (augment == "none" or spec.task == TASK):
        raise UserError(
            f"data.augment is {augment!r}, but a term compares two views of an image; set "
            "data.augment=crop_flip"
        )
    for kind, fields in (("text", spec.inputs), ("pairs", spec.latents)):
        if fields and augment != "none" and spec.task != TASK:
            verb = "is" if kind == "text" else "are"
            raise UserError(
                f"data.augment is {augment!r}, but {kind} {verb} not augmented; use none"
            )


def _unchanged(batch: Batch, key: Array | None = None) -> dict[str, Any]:
    """Return a batch of text unchanged: the host has prepared it."""
    del key
    return {name: jnp.asarray(value) for name, value in batch.items()}


def lookup(arrays: Mapping[str, Any] | None, batch: Batch) -> dict[str, Any]:
    """Fill a batch that holds only "id" with the rows of a device-resident training split.

    A batch with images is returned unchanged, and any batch if `arrays` is None, so the same step
    works for small and streamed sets.

    Args:
        arrays: `Source.arrays`, on the device.
        batch: with "id" int32 [batch].
    """
    if arrays is None or "image" in batch:
        return dict(batch)
    rows = batch["id"]
    gathered = {name: jnp.take(value, rows, axis=0, mode="clip") for name, value in arrays.items()}
    return {**batch, **gathered}
