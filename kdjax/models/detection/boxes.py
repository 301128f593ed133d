"""Boxes of a detector: overlaps, encoding relative to anchors, and the anchors.

A box is (left, top, right, bottom) in pixels of the network's input; its width is right - left.
All functions are pure, with static shapes: a mask marks padding. They take one image unless leading
axes are documented; `vmap` maps them over a batch.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError
from kdjax.types import Array

RATIOS = (0.5, 1.0, 2.0)  # height over width, arXiv 1506.01497 section 3.1.1
# upper limit of a decoded log ratio: no side grows by more than 1000 / 16 in one step
LARGEST = math.log(1000.0 / 16.0)
_SMALLEST = 1e-3  # pixels: minimum width, so that logarithms are finite


def areas(boxes: Array) -> Array:
    """Width times height, [..., 4] -> [...]; a negative side counts as 0."""
    left, top, right, bottom = jnp.moveaxis(boxes, -1, 0)
    return jnp.maximum(right - left, 0.0) * jnp.maximum(bottom - top, 0.0)


def intersections(a: Array, b: Array) -> Array:
    """Common area of every pair, [..., n, 4] and [..., m, 4] -> [..., n, m]."""
    # Coordinate by coordinate: with arrays [n, m, 2] a CPU takes ten times as long.
    a, b = jnp.moveaxis(a, -1, 0)[..., None], jnp.moveaxis(b, -1, 0)[..., None, :]
    wide = jnp.minimum(a[2], b[2]) - jnp.maximum(a[0], b[0])
    high = jnp.minimum(a[3], b[3]) - jnp.maximum(a[1], b[1])
    return jnp.maximum(wide, 0.0) * jnp.maximum(high, 0.0)


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of every pair, in [0, 1]; 0 where both areas are 0.

    Args:
      a: [..., n, 4].
      b: [..., m, 4].

    Returns:
      [..., n, m].

    >>> iou(jnp.array([[0.0, 0.0, 2.0, 1.0]]), jnp.array([[1.0, 0.0, 3.0, 1.0]])).round(4).tolist()
    [[0.33329999446868896]]
    """
    common = intersections(a, b)
    union = areas(a)[..., :, None] + areas(b)[..., None, :] - common
    real = union > 0
    return jnp.where(real, common / jnp.where(real, union, 1.0), 0.0)


def cover(a: Array, b: Array) -> Array:
    """Fraction of each `a` inside each `b`, COCO's overlap with crowds; [..., n, m]."""
    size = areas(a)[..., :, None]
    real = size > 0
    return jnp.where(real, intersections(a, b) / jnp.where(real, size, 1.0), 0.0)


def encode(boxes: Array, references: Array, weights: Sequence[float] = (1, 1, 1, 1)) -> Array:
    """Encode boxes relative to references: shifts in units of their size, and log ratios of sizes.

        wx (x - x_r) / w_r,  wy (y - y_r) / h_r,  ww log(w / w_r),  wh log(h / h_r)

    Args:
      boxes: [..., 4].
      references: [..., 4], anchors or proposals.
      weights: of the four numbers; (10, 10, 5, 5) brings a head's targets to unit variance.

    Returns:
      [..., 4]; finite also for boxes without area.
    """
    center, size = _center_size(boxes)
    middle, scale = _center_size(references)
    deltas = jnp.concatenate([(center - middle) / scale, jnp.log(size / scale)], axis=-1)
    return deltas * jnp.asarray(weights, jnp.float32)


def decode(deltas: Array, references: Array, weights: Sequence[float] = (1, 1, 1, 1)) -> Array:
    """Invert `encode`; a side grows by at most 1000 / 16. Shapes broadcast, [..., 4]."""
    deltas = deltas / jnp.asarray(weights, jnp.float32)
    middle, scale = _center_size(references)
    center = middle + deltas[..., :2] * scale
    half = 0.5 * scale * jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST))
    return jnp.concatenate([center - half, center + half], axis=-1)


def clip(boxes: Array, size: Array) -> Array:
    """Clip boxes [..., n, 4] to images of `size` [..., 2], (height, width)."""
    edge = jnp.asarray(size, jnp.float32)[..., None, ::-1]
    return jnp.clip(boxes, 0.0, jnp.concatenate([edge, edge], axis=-1))


def anchors(
    height: int, width: int, *, stride: int, size: float, ratios: Sequence[float] = RATIOS
) -> np.ndarray:
    """Place one box of each ratio on every cell of a feature map.

    A cell's centre is at stride * (column, row), the middle of the receptive field of a strided
    convolution with a padding of k // 2.

    Args:
      height: rows of the feature map.
      width: columns of the feature map.
      stride: pixels between cells.
      size: root of the area, in pixels.
      ratios: height over width.

    Returns:
      float32 [height * width * ratios, 4], the ratio varying fastest. Some extend beyond
      the image.

    Raises:
      UserError: a size or ratio that is not positive.
    """
    if not size > 0 or not ratios or not all(ratio > 0 for ratio in ratios):
        raise UserError(f"anchors: size {size} and ratios {tuple(ratios)} must be positive")
    tall = size * np.sqrt(np.asarray(ratios, np.float64))
    wide = size * size / tall
    shape = np.stack([-wide / 2, -tall / 2, wide / 2, tall / 2], axis=-1)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    center = stride * np.stack([columns, rows, columns, rows], axis=-1)
    return (center[:, :, None] + shape).reshape(-1, 4).astype(np.float32)


def _center_size(boxes: Array) -> tuple[Array, Array]:
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], _SMALLEST)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, size
