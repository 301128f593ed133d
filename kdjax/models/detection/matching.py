"""Which anchors and proposals a detector learns from: matching with boxes, sampling a fixed number.

One image at a time, static shapes: `vmap` maps them over a batch, with a key for each image.
"""

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import cover, iou
from kdjax.types import Array, UserError

__all__ = ["BACKGROUND", "FOREGROUND", "IGNORED", "match", "sample"]

FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1
_CROWDED = 0.5  # of a region's area inside a crowd: then it is neither object nor background


def match(
    regions: Array,
    boxes: Array,
    real: Array,
    crowd: Array,
    *,
    low: float,
    high: float,
    keep_best: bool = False,
) -> tuple[Array, Array]:
    """Say which box each region stands for, and whether it counts as an object.

    A region is foreground from an IoU of `high` on, background below `low`, else ignored. It is
    ignored too where it would be background but at least half of it lies in a crowd, of which
    nobody knows where the single objects are.

    Args:
      regions: [n, 4].
      boxes: [m, 4], padded.
      real: bool [m]: no padding.
      crowd: bool [m]: boxes around many objects; never matched.
      low: in [0, high].
      high: in (0, 1].
      keep_best: every box also keeps the regions that overlap it most, however little.

    Returns:
      Box indices int32 [n] (0 where there are no boxes) and FOREGROUND, BACKGROUND or IGNORED [n].
    """
    single = (real & ~crowd)[None]
    overlaps = jnp.where(single, iou(regions, boxes), 0.0)
    best = jnp.max(overlaps, axis=1)
    label = jnp.where(best >= high, FOREGROUND, jnp.where(best < low, BACKGROUND, IGNORED))
    if keep_best:
        # ties included, as the maximum is compared with what it was taken of
        most = jnp.max(overlaps, axis=0, keepdims=True)
        kept = jnp.any((overlaps == most) & (most > 0), axis=1)
        label = jnp.where(kept, FOREGROUND, label)
    inside = jnp.max(jnp.where((real & crowd)[None], cover(regions, boxes), 0.0), axis=1)
    label = jnp.where((label == BACKGROUND) & (inside >= _CROWDED), IGNORED, label)
    # argmax in two plain reductions, which a CPU vectorises
    numbers = jnp.arange(boxes.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(overlaps == best[:, None], numbers, numbers.size), axis=1), label


def sample(
    label: Array, key: Array, *, size: int, share: float, real: Array | None = None
) -> tuple[Array, Array]:
    """Draw `size` regions, foreground up to a share, then background.

    Args:
      label: [n], from `match`.
      key: consumed.
      size: how many to draw, at most n.
      share: the largest part that is foreground.
      real: bool [n]: what may be drawn at all.

    Returns:
      Indices int32 [size], foreground first, and which are real, bool [size].

    Raises:
      UserError: fewer regions than are to be drawn.
    """
    if not 1 <= size <= label.shape[0]:
        raise UserError(
            f"{size} regions are to be drawn of {label.shape[0]}; lower limits.regions or "
            "limits.anchors, or raise limits.proposals or the size of the images"
        )
    real = jnp.ones(label.shape, bool) if real is None else real
    drawn = jax.random.uniform(key, label.shape)
    objects, most = real & (label == FOREGROUND), max(1, int(size * share))
    high, positive = jax.lax.top_k(jnp.where(objects, drawn, -1.0), most)
    count = jnp.sum(high >= 0)
    rest, negative = jax.lax.top_k(jnp.where(real & (label == BACKGROUND), drawn, -1.0), size)
    taken = jnp.arange(size) < size - count
    valid = jnp.concatenate([high >= 0, (rest >= 0) & taken])
    order = jnp.argsort(~valid, stable=True)[:size]
    return jnp.concatenate([positive, negative])[order].astype(jnp.int32), valid[order]
