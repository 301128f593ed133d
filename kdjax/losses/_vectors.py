"""Vector arithmetic that the losses on features share: float32, finite at a zero vector."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.types import Array, UserError

__all__ = [
    "check_batches",
    "check_same_features",
    "gram",
    "norm",
    "products",
    "ratio",
    "rows",
    "smooth_l1",
    "squared_distances",
    "unit",
]


def check_same_features(
    student: ArrayLike, teacher: ArrayLike, wanted: str = "[batch, ...]"
) -> None:
    """Refuse two layers that differ in shape, or that have too few axes for `wanted`.

    Raises:
        UserError: naming both shapes and the wanted one.
    """
    shapes = jnp.shape(student), jnp.shape(teacher)
    least = 1 if wanted.startswith("[*") else 2
    if shapes[0] != shapes[1] or len(shapes[0]) < least:
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must have one shape {wanted}"
        )


def check_batches(student: ArrayLike, teacher: ArrayLike) -> None:
    """Refuse two layers that are not of one batch; all other axes may differ.

    Raises:
        UserError: naming both shapes.
    """
    shapes = jnp.shape(student), jnp.shape(teacher)
    if min(map(len, shapes)) < 2 or shapes[0][0] != shapes[1][0]:
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must be [batch, ...] of one "
            "batch"
        )


def rows(features: ArrayLike) -> Array:
    """[batch, ...] as float32 [batch, everything else]."""
    features = jnp.asarray(features, jnp.float32)
    return features.reshape(features.shape[0], -1)


def norm(x: Array) -> Array:
    """Euclidean length over the last axis; 0 with gradient 0 at the zero vector."""
    squared = jnp.sum(x * x, axis=-1)
    # The derivative of sqrt at 0 is infinite: it must not be evaluated there.
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient of an array and one that is not negative; 0 with gradient 0 where that is 0."""
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, 0.0)


def unit(x: Array) -> Array:
    """Direction x / ||x|| along the last axis; the zero vector has none and stays 0."""
    return ratio(x, norm(x)[..., None])


def products(x: Array, y: Array) -> Array:
    """Inner products of all rows of x [..., n, width] and of y [..., m, width]: [..., n, m]."""
    # Accelerators would round the factors to bfloat16 or TF32, and cosines near 1 with them.
    return jnp.einsum("...nd,...md->...nm", x, y, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def gram(x: Array) -> Array:
    """Inner products of all pairs of rows of x [n, width]: [n, n]."""
    return products(x, x)


@gram.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # One product and its transpose; differentiating both factors would make two.
    change = products(tangents[0], primals[0])
    return gram(primals[0]), change + change.T


@jax.custom_jvp
def squared_distances(x: Array) -> Array:
    """||x_i - x_j||^2 for all pairs of rows of x [n, width]: [n, n], exactly 0 for equal rows."""
    # Of the differences: x^2 + y^2 - 2 x y would lose the distance of close rows. One column at a
    # time, because the [n, n] sum then stays in the cache; the unrolled columns are one kernel.
    zeros = jnp.zeros((x.shape[0], x.shape[0]), x.dtype)
    add = lambda total, column: (total + (column[:, None] - column) ** 2, None)  # noqa: E731
    return jax.lax.scan(add, zeros, x.T, unroll=8)[0]


@squared_distances.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The derivative, too, needs differences only, but there products cost much less and lose
    # nothing that matters once the common offset is gone.
    x, change = primals[0] - jnp.mean(primals[0], axis=0), tangents[0]
    own, cross = jnp.sum(change * x, axis=-1), products(change, x)
    return squared_distances(primals[0]), 2 * (own[:, None] + own[None] - cross - cross.T)


def smooth_l1(gap: Array) -> Array:
    """Huber's penalty with its bend at 1: gap^2 / 2 inside, |gap| - 1/2 outside."""
    size = jnp.abs(gap)
    return jnp.where(size < 1, 0.5 * gap * gap, size - 0.5)
