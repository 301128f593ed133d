"""Non-maximum suppression with static shapes, within groups: classes, or levels of a pyramid."""

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import iou
from kdjax.types import Array


def suppress(
    boxes: Array, scores: Array, groups: Array, *, size: int, threshold: float
) -> tuple[Array, Array]:
    """Select boxes greedily: take the best remaining box and drop all boxes that it suppresses.

    A box suppresses the boxes of its group whose IoU with it exceeds `threshold`. Among equal
    scores the lower index is first. The time is proportional to `size` times n, and there is no
    matrix [n, n]; the loop ends when no box remains.

    Args:
      boxes: [n, 4].
      scores: [n]; -inf is padding.
      groups: int [n].
      size: largest number of boxes.
      threshold: in [0, 1].

    Returns:
      Indices int32 [size] in order of decreasing score, padded with 0, and a mask of the real ones,
      bool [size].
    """
    frozen = jax.lax.stop_gradient((boxes, scores))
    boxes, scores = (jnp.asarray(x, jnp.float32) for x in frozen)
    indices = jnp.arange(scores.shape[0])

    def has_more(carry: tuple[Array, Array, Array]) -> Array:
        count, remaining, _ = carry
        return (count < size) & (jnp.max(remaining) > -jnp.inf)

    def choose(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, remaining, chosen = carry
        best = jnp.argmax(remaining).astype(jnp.int32)
        overlap = iou(boxes[best][None], boxes)[0]
        removed = ((overlap > threshold) & (groups == groups[best])) | (indices == best)
        return count + 1, jnp.where(removed, -jnp.inf, remaining), chosen.at[count].set(best)

    start = (jnp.int32(0), scores, jnp.zeros(size, jnp.int32))
    count, _, chosen = jax.lax.while_loop(has_more, choose, start)
    return chosen, jnp.arange(size) < count
