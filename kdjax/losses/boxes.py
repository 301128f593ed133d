"""Losses of a detector's proposals and boxes; a classifier's losses work on its classes."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.errors import UserError
from kdjax.losses._checks import check_not_negative, check_pair
from kdjax.losses._types import Labels, Number, PerExample


def smooth_l1(
    deltas: Float[ArrayLike, "*batch numbers"],
    targets: Float[ArrayLike, "*batch numbers"],
    *,
    beta: Number = 0.0,
) -> PerExample:
    """Sum of h(d - t) over the numbers, h(x) = x^2 / (2 beta) for |x| < beta, else |x| - beta / 2.

    Fast R-CNN, arXiv 1504.08083, equation 3 (beta 1); beta 0 is the absolute error.

    Args:
        deltas: d, predicted.
        targets: t.
        beta: |x| at which the parabola ends, >= 0; may be traced.

    Returns:
        [*batch], >= 0.

    Raises:
        UserError: shapes that differ, or a beta below 0.

    >>> smooth_l1(jnp.array([0.5, 3.0]), jnp.zeros(2), beta=1.0).tolist()
    2.625
    """
    check_pair(deltas, targets, "boxes")
    check_not_negative("beta", beta)
    error = jnp.asarray(deltas, jnp.float32) - jnp.asarray(targets, jnp.float32)
    size = error * jax.lax.stop_gradient(jnp.sign(error))  # jnp.abs has the gradient 1 at 0
    small = size < beta
    inside = jnp.where(small, size, 0.0)  # all 0 at beta 0, where size / beta would be 0 / 0
    parabola = 0.5 * inside**2 / jnp.where(beta > 0, beta, 1.0)
    return jnp.sum(jnp.where(small, parabola, size - 0.5 * beta), axis=-1)


def binary_cross_entropy(logits: Float[ArrayLike, "*batch"], labels: Labels) -> PerExample:
    """-log of the probability of a label 1 or 0, sigmoid(z) or 1 - sigmoid(z).

    Returns:
        [*batch], nats.

    Raises:
        UserError: shapes that differ.

    >>> binary_cross_entropy(jnp.array([0.0, 100.0]), jnp.array([1, 1])).round(3).tolist()
    [0.6930000185966492, 0.0]
    """
    if jnp.shape(logits) != jnp.shape(labels):
        shapes = f"logits {jnp.shape(logits)} and labels {jnp.shape(labels)}"
        raise UserError(f"{shapes} must have the same shape")
    z = jnp.asarray(logits, jnp.float32)
    return jax.nn.softplus(jnp.where(jnp.asarray(labels) > 0, -z, z))
