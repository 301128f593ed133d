"""Losses on relations between the examples of a batch: distances, angles, similarities.

Student and teacher have the same batch size; widths may differ. All losses couple the batch: they
return one number, a mean over pairs or triples; pass the gathered features of all devices. Both
sides receive gradients. Results are float32, and finite where examples coincide or are 0. A
UserError is raised for different batch sizes and for features without a second axis.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.losses._checks import check_batches, check_count, check_pair, check_positive
from kdjax.losses._comparison import kl_summand
from kdjax.losses._types import Features, Number, Scalar
from kdjax.losses._vectors import gram, huber, norm, ratio, rows, squared_distances, unit
from kdjax.types import Array

_EPSILON = 1e-7  # in PKT's logarithm, as in the reference implementation
_VARIANCE_EPSILON = 1e-4  # in SRD's batch norm, as in the reference implementation


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
    # The gradient of an angle grows as 1 / length: for closer examples it would be rounding error,
    # or infinite.
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

    # The law of cosines needs only the sides of the triangles; inner products of differences would
    # cost `width` times as much. One vertex at a time keeps the arrays in the cache.
    sums = jax.lax.map(penalty_at, (list(sides), inverses))
    return jnp.sum(sums) / float(sides[0].shape[0]) ** 3


def probabilistic_knowledge_transfer(
    student_features: Features, teacher_features: Features
) -> Scalar:
    """PKT: mean_ij P_t log((P_t + e) / (P_s + e)), KL(teacher || student) over the neighbours.

    P_ij = (1 + cos(f_i, f_j)) / 2 with each row divided by its sum, e = 1e-7. The mean over i and j
    is that of the published code: 1 / batch times the mean divergence of a row.

    Returns:
        [], nats; couples the batch.

    Source: Passalis and Tefas 2018 (arXiv 1803.10837), equations 3 to 7 with the cosine kernel.

    >>> print(probabilistic_knowledge_transfer(jnp.eye(3), 2 * jnp.eye(3)))
    0.0
    """
    check_batches(student_features, teacher_features)
    s, t = (_neighbour_probabilities(rows(f)) for f in (student_features, teacher_features))
    # Rows of both sum to 1, so t - s may be subtracted: of nearly equal rows every number is then
    # >= 0, where t log(t / s) is a small sum of large numbers of both signs.
    p, q, gap = t + _EPSILON, s + _EPSILON, t - s
    log_ratio = jnp.where(jnp.abs(gap) < q / 2, jnp.log1p(gap / q), jnp.log(p / q))
    return jnp.mean(kl_summand(p, q, log_ratio, gap) - _EPSILON * log_ratio)


def _neighbour_probabilities(x: Array) -> Array:
    similarity = (gram(unit(x)) + 1) / 2
    return ratio(similarity, jnp.sum(similarity, axis=-1, keepdims=True))


def correlation_congruence(
    student_embedding: Float[ArrayLike, "batch width"],
    teacher_embedding: Float[ArrayLike, "batch width"],
) -> Float[Array, ""]:
    """CC between neighbours in the batch: mean_i sum_c d_ic d_(i+1)c, d = |s - t|.

    Returns:
        []; couples the batch, whose order matters. 0 for a batch of one.

    Raises:
        UserError: shapes that differ or are not [batch, width].

    Source: Peng et al. 2019 (arXiv 1904.01802), in the form of a public implementation.

    >>> print(correlation_congruence(jnp.ones((3, 2)), jnp.zeros((3, 2))))
    2.0
    """
    check_pair(student_embedding, teacher_embedding, "embeddings", "[batch, width]")
    gap = jnp.abs(rows(student_embedding) - rows(teacher_embedding))
    return jnp.sum(gap[:-1] * gap[1:]) / max(len(gap) - 1, 1)


def kernel_correlation_congruence(
    student_embedding: Float[ArrayLike, "batch width"],
    teacher_embedding: Float[ArrayLike, "batch width"],
    *,
    gamma: Number = 0.4,
    order: int = 2,
) -> Float[Array, ""]:
    """CC with the Taylor series of a Gaussian kernel: ||K_s - K_t||_F / batch^2.

    K_ij = e^(-2 gamma) sum_{p <= order} (2 gamma)^p <x_i, x_j>^p / p!. It is the Gaussian
    kernel for rows of length 1; rows are not normalised here.

    Args:
        student_embedding: x.
        teacher_embedding: of any width.
        gamma: > 0.
        order: of the series, >= 1.

    Returns:
        []; couples the batch. Where the kernels are equal the gradient is 0.

    Raises:
        UserError: different batch sizes, no second axis, gamma <= 0, order < 1.

    Source: Peng et al. 2019 (arXiv 1904.01802).

    >>> print(kernel_correlation_congruence(jnp.eye(3), jnp.eye(3)[::-1]))
    0.0
    """
    check_batches(student_embedding, teacher_embedding)
    check_positive("gamma", gamma)
    check_count("order", order)

    def kernel(embedding: ArrayLike) -> Array:
        products = gram(rows(embedding))
        series = (products**p * (2 * gamma) ** p / math.factorial(p) for p in range(1, order + 1))
        return jnp.exp(-2.0 * gamma) * sum(series, jnp.ones_like(products))

    gap = kernel(student_embedding) - kernel(teacher_embedding)
    return norm(gap.reshape(-1)) / gap.size


def log_sum_distance(
    student_embedding: Float[ArrayLike, "batch width"],
    teacher_embedding: Float[ArrayLike, "batch width"],
    *,
    exponent: Number = 4.0,
) -> Float[Array, ""]:
    """SRD: 2 log sum |a_s - a_t|^exponent; columns of a are standardized over the batch.

    Args:
        student_embedding: a_s, the output of a linear projector to the teacher's width.
        teacher_embedding: a_t.
        exponent: > 0.

    Returns:
        []; couples the batch. Equal embeddings give about -175, without gradient.

    Raises:
        UserError: shapes that differ or are not [batch, width], exponent <= 0.

    Source: Miles and Mikolajczyk 2023 (arXiv 2303.11098), the scale of a public implementation.

    >>> x = jnp.array([[0.0], [2.0]])
    >>> print(log_sum_distance(x, -x).round(2))  # 2 log(2 * 2^4), up to the epsilon
    6.93
    """
    check_pair(student_embedding, teacher_embedding, "embeddings", "[batch, width]")
    check_positive("exponent", exponent)
    gap = jnp.abs(_standardised(student_embedding) - _standardised(teacher_embedding))
    total = jnp.sum(jnp.where(gap > 0, jnp.where(gap > 0, gap, 1.0) ** exponent, 0.0))
    return 2 * jnp.log(jnp.maximum(total, jnp.finfo(jnp.float32).tiny))


def _standardised(embedding: ArrayLike) -> Array:
    x = rows(embedding)
    variance = jnp.var(x, axis=0)
    return (x - jnp.mean(x, axis=0)) / jnp.sqrt(variance + _VARIANCE_EPSILON)
