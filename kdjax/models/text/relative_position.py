"""Relative positions of T5: buckets of token distances (arXiv 1910.10683, section 2.1)."""

import math

import numpy as np


def relative_buckets(
    targets: int, sources: int, *, buckets: int, max_distance: int, both_sides: bool
) -> np.ndarray:
    """Return the bucket of the distance between each target and source, int32 [targets, sources].

    Half of the buckets are single distances; the others grow logarithmically up to `max_distance`,
    and all larger distances share the last one. With `both_sides` half of all buckets are for
    sources after the target; otherwise such sources count as distance 0.

    >>> relative_buckets(1, 4, buckets=8, max_distance=16, both_sides=True).tolist()
    [[0, 5, 6, 6]]
    """
    ahead = np.arange(sources)[None, :] - np.arange(targets)[:, None]
    first = np.zeros_like(ahead)
    if both_sides:
        buckets //= 2
        first = np.where(ahead > 0, buckets, 0)
        distance = np.abs(ahead)
    else:
        distance = np.maximum(-ahead, 0)
    exact = buckets // 2
    # float32, as for published checkpoints: rounding decides where the logarithm is an integer
    ratio = np.maximum(distance, exact).astype(np.float32) / exact
    steps = np.log(ratio) / np.float32(math.log(max_distance / exact)) * (buckets - exact)
    far = np.minimum(exact + steps.astype(np.int32), buckets - 1)
    return (first + np.where(distance < exact, distance, far)).astype(np.int32)
