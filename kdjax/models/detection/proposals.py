"""From a detector's dense answers to regions: proposals, what is learned from, and detections.

Pure functions of one image (`vmap` maps them over a batch), every shape static.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import areas, clip, decode, encode
from kdjax.models.detection.matching import FOREGROUND, match, sample
from kdjax.models.detection.nms import suppress
from kdjax.types import Array

__all__ = ["BOX_WEIGHTS", "DETECTION", "Limits", "Scene", "anchor_rows", "detect", "propose"]
__all__ += ["region_rows"]

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the second stage's coding, arXiv 1504.08083's variances
DETECTION = 7  # numbers of a detection: left, top, right, bottom, score, class, 1 if it is real


class Limits(NamedTuple):
    """All numbers of regions, and the thresholds; the defaults are those usual for COCO."""

    before: int = 1000  # proposals a level, before suppression
    proposals: int = 1000  # an image, after it
    anchors: int = 256  # an image that the proposal network learns from
    regions: int = 512  # an image that the box head learns from
    anchor_share: float = 0.5  # of foreground, at most
    region_share: float = 0.25
    proposal_overlap: float = 0.7  # of suppression
    detections: int = 100  # an image
    candidates: int = 1000  # of suppression, over all classes
    detection_overlap: float = 0.5
    least_score: float = 0.05


class Scene(NamedTuple):
    """What is known of one image: its boxes, padded to m, and its (height, width) in pixels."""

    box: Array  # [m, 4]
    label: Array  # int [m]
    real: Array  # bool [m]
    crowd: Array  # bool [m]
    size: Array  # [2]


def propose(
    logits: Array, deltas: Array, anchors: Sequence[Array], size: Array, limits: Limits
) -> tuple[Array, Array]:
    """Turn the proposal network's answers into the best regions.

    Args:
      logits: [anchors] of all levels in order.
      deltas: [anchors, 4].
      anchors: by level [anchors of it, 4].
      size: [2] height and width of the image inside its padding.
      limits: how many.

    Returns:
      Boxes [proposals, 4] by falling objectness, and which are real, bool [proposals].
    """
    logits, deltas = jax.lax.stop_gradient((logits, deltas))
    boxes, scores, groups, start = [], [], [], 0
    for level, placed in enumerate(anchors):
        end = start + placed.shape[0]
        best, index = jax.lax.top_k(logits[start:end], min(limits.before, end - start))
        boxes.append(decode(deltas[start:end][index], placed[index]))
        scores.append(best)
        groups.append(jnp.full(best.shape, level))
        start = end
    box = clip(jnp.concatenate(boxes), size)
    # a diverged network's NaN must not win every comparison
    good = (areas(box) > 0) & jnp.isfinite(box).all(axis=-1)
    score = jnp.where(good, jnp.concatenate(scores), -jnp.inf)
    kept, real = suppress(
        box,
        score,
        jnp.concatenate(groups),
        size=limits.proposals,
        threshold=limits.proposal_overlap,
    )
    return jnp.where(real[:, None], box[kept], 0.0), real


def anchor_rows(
    logits: Array, deltas: Array, anchors: Array, scene: Scene, key: Array, limits: Limits
) -> dict[str, Array]:
    """Draw the anchors that the proposal network learns from; rows of `limits.anchors`."""
    index, label = match(
        anchors, scene.box, scene.real, scene.crowd, low=0.3, high=0.7, keep_best=True
    )
    at, real = sample(label, key, size=limits.anchors, share=limits.anchor_share)
    return {
        "anchor_logits": logits[at],
        "anchor_label": (label[at] == FOREGROUND).astype(jnp.int32),
        "anchor_mask": real.astype(jnp.float32),
        "anchor_delta": deltas[at],
        "anchor_target": encode(scene.box[index[at]], anchors[at]),
    }


def region_rows(
    proposals: Array, real: Array, scene: Scene, key: Array, background: int, limits: Limits
) -> dict[str, Array]:
    """Draw the regions that box heads learn from, true boxes among them; `limits.regions` rows.

    Args:
      proposals: [n, 4].
      real: bool [n].
      scene: the truth.
      key: consumed.
      background: the class of what is no object.
      limits: how many.
    """
    single = scene.real & ~scene.crowd
    boxes = jnp.concatenate([proposals, scene.box])
    there = jnp.concatenate([real, single])
    index, label = match(boxes, scene.box, scene.real, scene.crowd, low=0.5, high=0.5)
    at, drawn = sample(label, key, size=limits.regions, share=limits.region_share, real=there)
    objects = label[at] == FOREGROUND
    box = jnp.where(drawn[:, None], boxes[at], 0.0)
    return {
        "region": box,
        "region_label": jnp.where(objects, scene.label[index[at]], background).astype(jnp.int32),
        "region_mask": drawn.astype(jnp.float32),
        "region_target": encode(scene.box[index[at]], box, BOX_WEIGHTS),
    }


def detect(
    logits: Array, deltas: Array, regions: Array, real: Array, size: Array, limits: Limits
) -> Array:
    """Turn the box head's answers into detections.

    Args:
      logits: [n, classes], the last class being background.
      deltas: [n, classes - 1, 4].
      regions: [n, 4].
      real: bool [n].
      size: [2] height and width of the image inside its padding.
      limits: how many.

    Returns:
      [detections, DETECTION] by falling score; zeros where there are none.
    """
    scores = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)[:, :-1]
    scores = jnp.where(real[:, None] & (scores > limits.least_score), scores, -jnp.inf)
    classes = scores.shape[1]
    best, at = jax.lax.top_k(scores.reshape(-1), min(limits.candidates, scores.size))
    row, label = at // classes, at % classes
    boxes = clip(decode(deltas[row, label], regions[row], BOX_WEIGHTS), size)
    best = jnp.where(areas(boxes) > 0, best, -jnp.inf)
    kept, there = suppress(
        boxes, best, label, size=limits.detections, threshold=limits.detection_overlap
    )
    columns = [best[kept][:, None], label[kept][:, None].astype(jnp.float32)]
    found = jnp.concatenate([boxes[kept], *columns, jnp.ones_like(columns[0])], axis=1)
    return jnp.where(there[:, None], found, 0.0)
