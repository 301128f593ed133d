"""Losses on relations between the examples of a batch: distances, angles, similarities.

Student and teacher must agree in the batch, not in the width. All couple the batch: they return
one number, a mean over pairs or triples; pass the gathered features of all devices. Both sides
receive gradients; float32; finite where examples coincide or are 0. Different batch sizes and
features without a second axis are refused with a UserError.
"""

import jax
import jax.numpy as jnp

from kdjax.losses._checks import check_batches
from kdjax.losses._types import Features, Scalar
from kdjax.losses._vectors import gram, huber, ratio, rows, squared_distances, unit
from kdjax.types import Array

_EPSILON = 1e-7  # in PKT's logarithm, the reference implementation's


def similarity_preserving(student_features: Features, teacher_features: Features) -> Scalar:
    """SP: mean_ij (G_s - G_t)_ij^2, G = F F^T with each row divided by its length.

    Returns:
        [], at most 4 / batch; couples the batch. A feature of 0 has a row of 0.

    Source: Tung and Mori 2019 (arXiv 1907.09682), equations 1 to 4.

    >>> print(similarity_preserving(jnp.eye(2), 3 * jnp.eye(2)))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (unit(gram(f)) for f in (rows(student_features), rows(teacher_features)))
    return jnp.mean((s - t) ** 2)


def relational_distance(student_features: Features, teacher_features: Features) -> Scalar:
    """RKD's distance part: mean_ij h(d_s / mu_s - d_t / mu_t), d_ij = ||f_i - f_j||.

    h is the smooth L1 penalty, mu the mean of the distances that are not 0. Examples closer than
    1e-6 of the root mean square distance count as coinciding, here and in the angles.

    Returns:
        [] float32; couples the batch. 0 where all examples coincide.

    Source: Park et al. 2019 (arXiv 1904.05068), equations 6 to 8; the diagonal is in the mean, as
    in the published code.

    >>> line = jnp.array([[0.0], [1.0], [3.0]])
    >>> print(relational_distance(line, 2 * line))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_relative_distances(rows(f)) for f in (student_features, teacher_features))
    return jnp.mean(huber(s - t))


def _lengths(x: Array) -> tuple[Array, Array]:
    """Return squared distances of all pairs and their roots, 0 for examples that coincide."""
    squared = squared_distances(x)
    # The gradient of an angle grows as 1 / length: for examples closer than this it would be
    # rounding error, or infinite.
    apart = squared > jax.lax.stop_gradient(1e-12 * jnp.mean(squared))
    return squared, jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _relative_distances(x: Array) -> Array:
    _, length = _lengths(x)
    mean = ratio(jnp.sum(length), jnp.sum(length > 0).astype(jnp.float32))
    return ratio(length, mean)


def relational_angle(student_features: Features, teacher_features: Features) -> Scalar:
    """RKD's angle part: mean_ijk h(cos_s - cos_t), of the angle at example i between j and k.

    h is the smooth L1 penalty. Time grows with batch^3, memory with batch^2.

    Returns:
        [], between 0 and 3/2; couples the batch. Where two of three coincide the cosine is 0.

    Source: Park et al. 2019 (arXiv 1904.05068), equations 9 to 11; triples that repeat an example
    are in the mean, as in the published code.

    >>> corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> print(relational_angle(corner, 4 * corner))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_lengths(rows(f)) for f in (student_features, teacher_features))
    inverses = [ratio(jnp.ones_like(length), length) for _, length in (s, t)]
    sides = s[0], t[0]

    @jax.checkpoint
    def penalty_at(vertex: tuple[list[Array], list[Array]]) -> Array:
        cosines = [
            0.5 * (near[:, None] + near - side) * (inverse[:, None] * inverse)
            for near, inverse, side in zip(*vertex, sides, strict=True)
        ]
        return jnp.sum(huber(cosines[0] - cosines[1]))

    # By the law of cosines, from the sides of the triangles alone: inner products of differences
    # would cost `width` times as much. One vertex at a time keeps the work in the cache.
    sums = jax.lax.map(penalty_at, (list(sides), inverses))
    return jnp.sum(sums) / float(sides[0].shape[0]) ** 3


def probabilistic_knowledge_transfer(
    student_features: Features, teacher_features: Features
) -> Scalar:
    """PKT: mean_ij P_t log((P_t + e) / (P_s + e)), KL(teacher || student) over the neighbours.

    P_ij = (1 + cos(f_i, f_j)) / 2 with each row divided by its sum, e = 1e-7. Divided by batch^2
    as in the published code, so it is 1 / batch times the mean divergence of a row.

    Returns:
        [], nats; couples the batch.

    Source: Passalis and Tefas 2018 (arXiv 1803.10837), equations 3 to 7 with the cosine kernel.

    >>> print(probabilistic_knowledge_transfer(jnp.eye(3), 2 * jnp.eye(3)))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_neighbour_probabilities(rows(f)) for f in (student_features, teacher_features))
    return jnp.mean(t * jnp.log((t + _EPSILON) / (s + _EPSILON)))


def _neighbour_probabilities(x: Array) -> Array:
    similarity = (gram(unit(x)) + 1) / 2
    return ratio(similarity, jnp.sum(similarity, axis=-1, keepdims=True))
