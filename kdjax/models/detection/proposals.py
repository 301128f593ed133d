"""Regions from a detector's dense outputs: proposals, training regions, and detections.

Pure functions of one image with static shapes; `vmap` maps them over a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import areas, clip, decode, encode
from kdjax.models.detection.matching import FOREGROUND, GroundTruth, match, sample
from kdjax.models.detection.nms import suppress
from kdjax.types import Array

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the second stage's encoding, arXiv 1504.08083's variances
DETECTION = 7  # numbers of a detection: left, top, right, bottom, score, class, 1 if it is real


class Limits(NamedTuple):
    """Numbers of regions and thresholds; the defaults are the usual ones for COCO."""

    before: int = 1000  # proposals for each level, before suppression
    proposals: int = 1000  # proposals for each image, after suppression
    anchors: int = 256  # training anchors of the proposal network for each image
    regions: int = 512  # training regions of the box head for each image
    anchor_share: float = 0.5  # maximum share of foreground
    region_share: float = 0.25
    proposal_overlap: float = 0.7  # largest IoU of two proposals of a level
    detections: int = 100  # for each image, after suppression
    candidates: int = 1000  # detections for each image, before suppression
    detection_overlap: float = 0.5  # largest IoU of two detections of a class
    least_score: float = 0.05  # of a detection


def propose(
    logits: Array, deltas: Array, anchors: Sequence[Array], size: Array, limits: Limits
) -> tuple[Array, Array]:
    """Select the best regions of the proposal network.

    Args:
      logits: [anchors] of all levels in order.
      deltas: [anchors, 4].
      anchors: by level [anchors of the level, 4].
      size: [2] height and width of the image inside its padding.
      limits: numbers of regions.

    Returns:
      Boxes [proposals, 4] in order of decreasing objectness, and a mask of the real ones, bool
      [proposals].
    """
    logits, deltas = jax.lax.stop_gradient((logits, deltas))
    boxes, scores, groups, start = [], [], [], 0
    for level, level_anchors in enumerate(anchors):
        end = start + level_anchors.shape[0]
        best, index = jax.lax.top_k(logits[start:end], min(limits.before, end - start))
        boxes.append(decode(deltas[start:end][index], level_anchors[index]))
        scores.append(best)
        groups.append(jnp.full(best.shape, level))
        start = end
    box = clip(jnp.concatenate(boxes), size)
    # NaNs of a diverged network must not rank first
    valid = (areas(box) > 0) & jnp.isfinite(box).all(axis=-1)
    score = jnp.where(valid, jnp.concatenate(scores), -jnp.inf)
    group, overlap = jnp.concatenate(groups), limits.proposal_overlap
    index, real = suppress(box, score, group, size=limits.proposals, threshold=overlap)
    return jnp.where(real[:, None], box[index], 0.0), real


def anchor_rows(
    logits: Array, deltas: Array, anchors: Array, truth: GroundTruth, key: Array, limits: Limits
) -> dict[str, Array]:
    """Sample the training anchors of the proposal network; `limits.anchors` rows."""
    index, label = match(anchors, truth, low=0.3, high=0.7, keep_best=True)
    rows, real = sample(label, key, size=limits.anchors, share=limits.anchor_share)
    return {
        "anchor_logits": logits[rows],
        "anchor_label": (label[rows] == FOREGROUND).astype(jnp.int32),
        "anchor_mask": real.astype(jnp.float32),
        "anchor_delta": deltas[rows],
        "anchor_target": encode(truth.box[index[rows]], anchors[rows]),
    }


def region_rows(
    proposals: Array, real: Array, truth: GroundTruth, key: Array, background: int, limits: Limits
) -> dict[str, Array]:
    """Sample the training regions of box heads, true boxes included; `limits.regions` rows.

    Args:
      proposals: [n, 4].
      real: bool [n].
      truth: boxes of the image.
      key: consumed.
      background: index of the background class.
      limits: numbers of regions.

    Returns:
      The arrays of `faster_rcnn.REGION_KEYS`, [regions, ...].
    """
    boxes = jnp.concatenate([proposals, truth.box])
    allowed = jnp.concatenate([real, truth.real & ~truth.crowd])
    index, label = match(boxes, truth, low=0.5, high=0.5)
    rows, drawn = sample(label, key, size=limits.regions, share=limits.region_share, real=allowed)
    objects = label[rows] == FOREGROUND
    box = jnp.where(drawn[:, None], boxes[rows], 0.0)
    return {
        "region": box,
        "region_label": jnp.where(objects, truth.label[index[rows]], background).astype(jnp.int32),
        "region_mask": drawn.astype(jnp.float32),
        "region_target": encode(truth.box[index[rows]], box, BOX_WEIGHTS),
    }


def detect(
    logits: Array, deltas: Array, regions: Array, real: Array, size: Array, limits: Limits
) -> Array:
    """Select detections from the outputs of the box head.

    Args:
      logits: [n, classes], the last class being background.
      deltas: [n, classes - 1, 4].
      regions: [n, 4].
      real: bool [n].
      size: [2] height and width of the image inside its padding.
      limits: numbers of regions.

    Returns:
      [detections, DETECTION] in order of decreasing score, padded with zeros.
    """
    scores = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)[:, :-1]
    scores = jnp.where(real[:, None] & (scores > limits.least_score), scores, -jnp.inf)
    classes = scores.shape[1]
    best, index = jax.lax.top_k(scores.reshape(-1), min(limits.candidates, scores.size))
    row, label = index // classes, index % classes
    boxes = clip(decode(deltas[row, label], regions[row], BOX_WEIGHTS), size)
    best = jnp.where(areas(boxes) > 0, best, -jnp.inf)
    overlap = limits.detection_overlap
    index, real = suppress(boxes, best, label, size=limits.detections, threshold=overlap)
    columns = [best[index][:, None], label[index][:, None].astype(jnp.float32)]
    detections = jnp.concatenate([boxes[index], *columns, jnp.ones_like(columns[0])], axis=1)
    return jnp.where(real[:, None], detections, 0.0)
