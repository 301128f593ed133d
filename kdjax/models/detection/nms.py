"""Non-maximum suppression of static shape, within groups: classes, or levels of a pyramid."""

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import iou
from kdjax.types import Array

__all__ = ["suppress"]


def suppress(
    boxes: Array, scores: Array, groups: Array, *, size: int, threshold: float
) -> tuple[Array, Array]:
    """Choose boxes greedily: the best one left, then away with all that it overlaps too much.

    A box suppresses those of its own group whose IoU with it exceeds `threshold`. Ties of scores
    go to the lower index. The cost is `size` times n, and no matrix [n, n] is ever made; the loop
    ends when nothing is left.

    Args:
      boxes: [n, 4].
      scores: [n]; -inf marks what is not there.
      groups: int [n].
      size: how many to choose at most.
      threshold: in [0, 1].

    Returns:
      Indices int32 [size] by falling score, and which of them are real, bool [size]; the others
      are 0.
    """
    frozen = jax.lax.stop_gradient((boxes, scores))
    boxes, scores = (jnp.asarray(x, jnp.float32) for x in frozen)
    place = jnp.arange(scores.shape[0])

    def going(carry: tuple[Array, Array, Array]) -> Array:
        count, left, _ = carry
        return (count < size) & (jnp.max(left) > -jnp.inf)

    def choose(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, left, chosen = carry
        best = jnp.argmax(left).astype(jnp.int32)
        overlap = iou(boxes[best][None], boxes)[0]
        gone = ((overlap > threshold) & (groups == groups[best])) | (place == best)
        return count + 1, jnp.where(gone, -jnp.inf, left), chosen.at[count].set(best)

    start = (jnp.int32(0), scores, jnp.zeros(size, jnp.int32))
    count, _, chosen = jax.lax.while_loop(going, choose, start)
    return chosen, jnp.arange(size) < count
