"""Terms of a detector that compare with labels; the terms of classifiers apply to its classes.

`models.faster_rcnn` names the features that these terms read.
"""

from collections.abc import Callable

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import NOT_NEGATIVE, Scalar, Teachers, TermSpec
from kdjax.types import Array, Batch, Outputs, Scalars


def binary_cross_entropy() -> TermSpec:
    """Binary cross-entropy of the proposal network over the sampled anchors."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return losses.binary_cross_entropy(student.features["anchor_logits"], batch["label"])

    layers = (("anchor_logits", "anchor_logits"),)
    return TermSpec(loss_fn, {}, teachers="none", layers=layers, rows="anchor")


def anchor_smooth_l1() -> TermSpec:
    """Smooth L1 of the proposal network's foreground boxes, averaged over all sampled anchors."""
    return _smooth_l1("anchor", lambda student, batch: batch["label"] > 0, rows="anchor")


def box_smooth_l1() -> TermSpec:
    """Smooth L1 of the box head's foreground boxes, averaged over all sampled regions."""
    # background is the last class
    return _smooth_l1("box", lambda student, batch: batch["label"] < student.logits.shape[-1] - 1)


def _smooth_l1(
    prefix: str, foreground: Callable[[Outputs, Batch], Array], *, rows: str = "row"
) -> TermSpec:
    names = (f"{prefix}_delta", f"{prefix}_target")

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        deltas, targets = (student.features[name] for name in names)
        values = losses.smooth_l1(deltas, targets, **scalars)
        return jnp.where(foreground(student, batch), values, 0.0)

    layers = tuple((name, name) for name in names)
    beta = {"beta": Scalar(0.0, NOT_NEGATIVE)}
    return TermSpec(loss_fn, beta, teachers="none", layers=layers, rows=rows)
