"""Training regions of a detector: matching of anchors and proposals with boxes, and sampling.

Functions of one image with static shapes; `vmap` maps them over a batch, with a key per image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models.detection.boxes import cover, iou
from kdjax.types import Array

FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1
_CROWDED = 0.5  # least share of a background region's area in a crowd for it to be ignored


class GroundTruth(NamedTuple):
    """Boxes of one image, padded to m, and its (height, width) in pixels."""

    box: Array  # [m, 4]
    label: Array  # int [m]
    real: Array  # bool [m]: False is padding
    crowd: Array  # bool [m]: around many objects; never matched
    size: Array  # [2]


def match(
    regions: Array, truth: GroundTruth, *, low: float, high: float, keep_best: bool = False
) -> tuple[Array, Array]:
    """Assign a box to each region, and label it as object, background or ignored.

    A region is foreground if its largest IoU is at least `high`, background if it is below `low`,
    else ignored. A background region is also ignored if at least half of it lies in a crowd, where
    the positions of the single objects are unknown.

    Args:
      regions: [n, 4].
      truth: boxes of the image.
      low: in [0, high].
      high: in (0, 1].
      keep_best: for every box the regions with the largest IoU > 0 are foreground too.

    Returns:
      Box indices int32 [n] (0 where there are no boxes) and FOREGROUND, BACKGROUND or IGNORED [n].
    """
    real, crowd = truth.real, truth.crowd
    overlaps = jnp.where((real & ~crowd)[None], iou(regions, truth.box), 0.0)
    best = jnp.max(overlaps, axis=1)
    label = jnp.where(best >= high, FOREGROUND, jnp.where(best < low, BACKGROUND, IGNORED))
    if keep_best:
        largest = jnp.max(overlaps, axis=0, keepdims=True)  # == below includes ties
        is_best = jnp.any((overlaps == largest) & (largest > 0), axis=1)
        label = jnp.where(is_best, FOREGROUND, label)
    inside = jnp.max(jnp.where((real & crowd)[None], cover(regions, truth.box), 0.0), axis=1)
    label = jnp.where((label == BACKGROUND) & (inside >= _CROWDED), IGNORED, label)
    # argmax as two reductions, which a CPU vectorises
    numbers = jnp.arange(truth.box.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(overlaps == best[:, None], numbers, numbers.size), axis=1), label


def sample(
    label: Array, key: Array, *, size: int, share: float, real: Array | None = None
) -> tuple[Array, Array]:
    """Sample `size` regions: foreground up to `share`, the rest background.

    Args:
      label: [n], from `match`.
      key: consumed.
      size: number of regions, at most n.
      share: largest fraction of foreground.
      real: bool [n]: regions that may be sampled.

    Returns:
      Indices int32 [size], foreground first, and a mask of the real ones, bool [size].

    Raises:
      UserError: `size` is larger than n.
    """
    if not 1 <= size <= label.shape[0]:
        raise UserError(
            f"{size} regions are to be sampled from {label.shape[0]}; lower limits.regions or "
            "limits.anchors, or raise limits.proposals or the size of the images"
        )
    real = jnp.ones(label.shape, bool) if real is None else real
    drawn = jax.random.uniform(key, label.shape)
    objects, limit = real & (label == FOREGROUND), max(1, int(size * share))
    high, positive = jax.lax.top_k(jnp.where(objects, drawn, -1.0), limit)
    count = jnp.sum(high >= 0)
    rest, negative = jax.lax.top_k(jnp.where(real & (label == BACKGROUND), drawn, -1.0), size)
    fits = jnp.arange(size) < size - count
    valid = jnp.concatenate([high >= 0, (rest >= 0) & fits])
    order = jnp.argsort(~valid, stable=True)[:size]
    return jnp.concatenate([positive, negative])[order].astype(jnp.int32), valid[order]
