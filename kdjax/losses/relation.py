"""Losses on relations: how the examples of a batch lie to each other, in student and teacher.

Only the batch must agree; the widths may differ, because relations have none. All couple the
batch: they return one number, a mean over pairs or triples, and want the gathered features of all
devices. Both sides receive gradients; float32; finite where examples coincide or are 0.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.losses.vectors import check_batches, norm, products, ratio, rows, smooth_l1, unit
from kdjax.types import Array

__all__ = [
    "probabilistic_knowledge_transfer",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
]

_EPSILON = 1e-7  # in PKT's logarithm, the reference implementation's


def similarity_preserving(
    student_features: Float[ArrayLike, "batch ..."], teacher_features: Float[ArrayLike, "batch ..."]
) -> Float[Array, ""]:
    """SP: mean_ij (G_s - G_t)_ij^2, G = F F^T with each row divided by its length.

    Returns:
        [], at most 4 / batch; couples the batch. A feature of 0 has a row of 0.

    Raises:
        UserError: other batch, or no axis beside it.

    Source: Tung and Mori 2019 (arXiv 1907.09682), equations 1 to 4.

    >>> print(similarity_preserving(jnp.eye(2), 3 * jnp.eye(2)))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (unit(products(f, f)) for f in (rows(student_features), rows(teacher_features)))
    return jnp.mean((s - t) ** 2)


def relational_distance(
    student_features: Float[ArrayLike, "batch ..."], teacher_features: Float[ArrayLike, "batch ..."]
) -> Float[Array, ""]:
    """RKD's distance part: mean_ij h(d_s / mu_s - d_t / mu_t), d_ij = ||f_i - f_j||.

    h is the smooth L1 penalty, mu the mean of the distances that are not 0.

    Returns:
        [] float32; couples the batch. 0 where all examples coincide.

    Raises:
        UserError: other batch, or no axis beside it.

    Source: Park et al. 2019 (arXiv 1904.05068), equations 6 to 8; the diagonal is in the mean, as
    in the published code.

    >>> line = jnp.array([[0.0], [1.0], [3.0]])
    >>> print(relational_distance(line, 2 * line))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_distances(rows(f)) for f in (student_features, teacher_features))
    return jnp.mean(smooth_l1(s - t))


def _distances(x: Array) -> Array:
    # Of the differences, not of inner products: those lose the distance of close examples.
    distances = norm(x[:, None] - x[None])
    mean = ratio(jnp.sum(distances), jnp.sum(distances > 0).astype(jnp.float32))
    return ratio(distances, mean)


def relational_angle(
    student_features: Float[ArrayLike, "batch ..."], teacher_features: Float[ArrayLike, "batch ..."]
) -> Float[Array, ""]:
    """RKD's angle part: mean_ijk h(cos_s - cos_t), of the angle at example i between j and k.

    h is the smooth L1 penalty. Needs batch^3 + batch^2 width numbers of memory.

    Returns:
        [], between 0 and 3/2; couples the batch. Where two of three coincide the cosine is 0.

    Raises:
        UserError: other batch, or no axis beside it.

    Source: Park et al. 2019 (arXiv 1904.05068), equations 9 to 11; triples that repeat an example
    are in the mean, as in the published code.

    >>> corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> print(relational_angle(corner, 4 * corner))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_angles(rows(f)) for f in (student_features, teacher_features))
    return jnp.mean(smooth_l1(s - t))


def _angles(x: Array) -> Array:
    toward = unit(x[None] - x[:, None])  # [i, j]: from i to j
    return products(toward, toward)


def probabilistic_knowledge_transfer(
    student_features: Float[ArrayLike, "batch ..."], teacher_features: Float[ArrayLike, "batch ..."]
) -> Float[Array, ""]:
    """PKT: mean_ij P_t log((P_t + e) / (P_s + e)), a KL from teacher to student over neighbours.

    P_ij = (1 + cos(f_i, f_j)) / 2 with each row divided by its sum, e = 1e-7. Divided by batch^2
    as in the published code, so it is 1 / batch times the mean divergence of a row.

    Returns:
        [], nats; couples the batch.

    Raises:
        UserError: other batch, or no axis beside it.

    Source: Passalis and Tefas 2018 (arXiv 1803.10837), equations 3 to 7 with the cosine kernel.

    >>> print(probabilistic_knowledge_transfer(jnp.eye(3), 2 * jnp.eye(3)))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_neighbours(rows(f)) for f in (student_features, teacher_features))
    return jnp.mean(t * jnp.log((t + _EPSILON) / (s + _EPSILON)))


def _neighbours(x: Array) -> Array:
    direction = unit(x)
    similarity = (products(direction, direction) + 1) / 2
    return ratio(similarity, jnp.sum(similarity, axis=-1, keepdims=True))
