"""The checks every loss makes of its arguments before it computes.

Broadcasting would hide a wrong shape, and a temperature of 0 would only show up as a NaN much
later: both are refused here, in one line that names the argument and what would be right.
"""

import math

import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Shaped

from kdjax.types import Array, UserError

__all__ = [
    "Number",
    "check_fraction",
    "check_labels",
    "check_not_negative",
    "check_pair",
    "check_positive",
]

Number = float | int | Shaped[Array, ""]  # a keyword scalar: a constant or a traced value


def check_pair(student: ArrayLike, teacher: ArrayLike, what: str = "logits") -> None:
    """Refuse a student and a teacher array that differ in shape, or that have no class axis.

    Raises:
        UserError: naming `what` and both shapes.
    """
    if jnp.ndim(student) < 1 or jnp.shape(student) != jnp.shape(teacher):
        raise UserError(
            f"{what}: student {jnp.shape(student)} and teacher {jnp.shape(teacher)} must have one "
            "shape [*batch, classes]"
        )


def check_labels(logits: ArrayLike, labels: ArrayLike) -> None:
    """Refuse labels that are not one class index (integer) for each row of `logits`.

    Raises:
        UserError: naming both shapes, or the dtype.
    """
    if jnp.ndim(logits) < 1 or jnp.shape(labels) != jnp.shape(logits)[:-1]:
        raise UserError(
            f"labels: shape {jnp.shape(labels)} must be that of the logits {jnp.shape(logits)} "
            "without the class axis"
        )
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise UserError(
            f"labels: dtype {jnp.result_type(labels)} must be an integer (class indices, "
            "not probabilities)"
        )


def check_positive(name: str, value: Number) -> None:
    """Refuse a concrete `value` that is not a finite number > 0; traced values pass unseen.

    Raises:
        UserError: naming the argument.
    """
    if not isinstance(value, Tracer) and not 0 < float(value) < math.inf:
        raise UserError(f"{name}: must be a finite number > 0, got {float(value):g}")


def check_not_negative(name: str, value: Number) -> None:
    """Refuse a concrete `value` that is not a finite number >= 0; traced values pass unseen.

    Raises:
        UserError: naming the argument.
    """
    if not isinstance(value, Tracer) and not 0 <= float(value) < math.inf:
        raise UserError(f"{name}: must be a finite number >= 0, got {float(value):g}")


def check_fraction(name: str, value: Number, *, zero: bool = False) -> None:
    """Refuse a concrete `value` outside (0, 1), or outside [0, 1) where `zero` is allowed.

    Raises:
        UserError: naming the argument and the interval.
    """
    if isinstance(value, Tracer) or 0 < float(value) < 1:
        return
    if not (zero and float(value) == 0):
        raise UserError(f"{name}: must lie in {'[' if zero else '('}0, 1), got {float(value):g}")
