"""Vector arithmetic that the losses on features share, in float32 and finite at zero vectors."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.types import Array


def rows(features: ArrayLike) -> Array:
    """Flatten [batch, ...] to float32 [batch, width]."""
    features = jnp.asarray(features, jnp.float32)
    return features.reshape(features.shape[0], -1)


def norm(x: Array) -> Array:
    """Return the Euclidean length over the last axis; 0 with gradient 0 at the zero vector."""
    squared = jnp.sum(x * x, axis=-1)
    # The derivative of sqrt at 0 is infinite: it must not be evaluated there.
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def deviation(x: Array) -> Array:
    """Return the standard deviation over the last axis, with n - 1 in its denominator."""
    return norm(x - jnp.mean(x, axis=-1, keepdims=True)) / max(x.shape[-1] - 1, 1) ** 0.5


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide by a denominator >= 0; 0 with gradient 0 where the denominator is 0."""
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, 0.0)


def unit(x: Array) -> Array:
    """Return the direction x / ||x|| along the last axis; a zero vector stays 0."""
    return ratio(x, norm(x)[..., None])


def products(x: Array, y: Array) -> Array:
    """Return inner products of the rows of x [..., n, width] and y [..., m, width]: [..., n, m]."""
    # By default accelerators round the factors to bfloat16 or TF32, too coarse for cosines near 1.
    return jnp.einsum("...nd,...md->...nm", x, y, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def gram(x: Array) -> Array:
    """Return the inner products of all pairs of rows of x [n, width]: [n, n]."""
    return products(x, x)


@gram.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # One product and its transpose; differentiating both factors would make two.
    change = products(tangents[0], primals[0])
    return gram(primals[0]), change + change.T


@jax.custom_jvp
def squared_distances(x: Array) -> Array:
    """Return ||x_i - x_j||^2 of all pairs of rows of x [n, width]: [n, n], 0 for equal rows."""
    # From differences: x^2 + y^2 - 2 x y would lose the distance of close rows. One column at a
    # time, so that the [n, n] sum stays in the cache; the unrolled columns are one kernel.

    def add(total: Array, column: Array) -> tuple[Array, None]:
        return total + (column[:, None] - column) ** 2, None

    zeros = jnp.zeros((x.shape[0], x.shape[0]), x.dtype)
    return jax.lax.scan(add, zeros, x.T, unroll=8)[0]


@squared_distances.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The derivative needs differences only, too, but products cost much less and are accurate
    # enough once the mean is subtracted.
    x, change = primals[0] - jnp.mean(primals[0], axis=0), tangents[0]
    own, cross = jnp.sum(change * x, axis=-1), products(change, x)
    return squared_distances(primals[0]), 2 * (own[:, None] + own[None] - cross - cross.T)


def huber(error: Array) -> Array:
    """Return Huber's penalty: error^2 / 2 where |error| < 1, else |error| - 1/2."""
    size = jnp.abs(error)
    return jnp.where(size < 1, 0.5 * error * error, size - 0.5)
