"""Argument checks of the losses; every error is one line with the argument and the rule.

Broadcasting would hide a wrong shape, and a temperature of 0 would only show as a NaN much later.
Traced scalars have no value yet and pass unchecked.
"""

import math

import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.losses._types import Number


def check_pair(
    student: ArrayLike, teacher: ArrayLike, name: str = "logits", axes: str = "[*batch, classes]"
) -> None:
    """Refuse a student and a teacher array that differ in shape or do not fit `axes`."""
    shapes = jnp.shape(student), jnp.shape(teacher)
    named = [axis for axis in axes.split(", ") if "*" not in axis]
    open_ended = "*" in axes or "..." in axes
    fits = len(shapes[0]) >= len(named) if open_ended else len(shapes[0]) == len(named)
    if shapes[0] != shapes[1] or not fits:
        raise UserError(
            f"{name}: student {shapes[0]} and teacher {shapes[1]} must have the same shape {axes}"
        )


def check_batches(student: ArrayLike, teacher: ArrayLike) -> None:
    """Refuse features of different batch sizes or without a second axis; widths may differ."""
    shapes = jnp.shape(student), jnp.shape(teacher)
    if min(map(len, shapes)) < 2 or shapes[0][0] != shapes[1][0]:
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must be [batch, ...] with "
            "equal batch sizes"
        )


def check_labels(outputs: ArrayLike, labels: ArrayLike, name: str = "logits") -> None:
    """Refuse labels that are not one class index (integer) for each row of `outputs`."""
    if jnp.ndim(outputs) < 1 or jnp.shape(labels) != jnp.shape(outputs)[:-1]:
        raise UserError(
            f"labels: shape {jnp.shape(labels)} must be the shape of the {name}, "
            f"{jnp.shape(outputs)}, without the last axis"
        )
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise UserError(
            f"labels: dtype {jnp.result_type(labels)} must be an integer (class indices, "
            "not probabilities)"
        )


def check_mask(name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> None:
    """Refuse a mask whose shape is not `shape`; None passes."""
    if mask is not None and jnp.shape(mask) != shape:
        raise UserError(f"{name}: shape {jnp.shape(mask)} must be {shape}, one entry per example")


def check_count(name: str, value: int) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise UserError(f"{name}: must be >= 1, got {value}")


def check_positive(name: str, value: Number) -> None:
    """Refuse a value that is not a finite number > 0."""
    if not isinstance(value, Tracer) and not 0 < float(value) < math.inf:
        raise UserError(f"{name}: must be a finite number > 0, got {float(value):g}")


def check_not_negative(name: str, value: Number) -> None:
    """Refuse a value that is not a finite number >= 0."""
    if not isinstance(value, Tracer) and not 0 <= float(value) < math.inf:
        raise UserError(f"{name}: must be a finite number >= 0, got {float(value):g}")


def check_fraction(name: str, value: Number) -> None:
    """Refuse a value outside [0, 1)."""
    if not isinstance(value, Tracer) and not 0 <= float(value) < 1:
        raise UserError(f"{name}: must lie in [0, 1), got {float(value):g}")


def check_open_fraction(name: str, value: Number) -> None:
    """Refuse a value outside (0, 1)."""
    if not isinstance(value, Tracer) and not 0 < float(value) < 1:
        raise UserError(f"{name}: must lie in (0, 1), got {float(value):g}")
