"""Terms of a detector that have labels alone; on its classes every term of a classifier works.

The features that they look at are said at `models.faster_rcnn`.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import Definition, Scalar
from kdjax.types import Array, Batch, Outputs, Scalars

_BETA = {"beta": Scalar(0.0, (-1e-9, math.inf))}


def objectness() -> Definition:
    """Binary cross-entropy of the proposal network over the anchors drawn."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.binary_cross_entropy(own.features["anchor_logits"], batch["label"])

    layers = (("anchor_logits", "anchor_logits"),)
    return Definition(value, {}, peers="none", layers=layers, rows="anchor")


def anchor_regression() -> Definition:
    """Smooth L1 of the proposal network's boxes: foreground counts, the mean is over all drawn."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        deltas, targets = own.features["anchor_delta"], own.features["anchor_target"]
        return jnp.where(batch["label"] > 0, losses.smooth_l1(deltas, targets, **scalars), 0.0)

    layers = tuple((name, name) for name in ("anchor_delta", "anchor_target"))
    return Definition(value, _BETA, peers="none", layers=layers, rows="anchor")


def box_regression() -> Definition:
    """Smooth L1 of the box head: foreground counts, the mean is over all regions drawn."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        deltas, targets = own.features["box_delta"], own.features["box_target"]
        objects = batch["label"] < own.logits.shape[-1] - 1  # background is the last class
        return jnp.where(objects, losses.smooth_l1(deltas, targets, **scalars), 0.0)

    layers = tuple((name, name) for name in ("box_delta", "box_target"))
    return Definition(value, _BETA, peers="none", layers=layers)
