"""Losses on feature maps [batch, height, width, channel], one number per example.

Unless a docstring says otherwise, the taller of two maps is averaged down to the other's size. All
is computed in float32 and stays finite at zero maps.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.errors import UserError
from kdjax.losses._checks import check_pair, check_positive
from kdjax.losses._maps import channel_rows, map_pair, match, pool
from kdjax.losses._types import Number
from kdjax.losses._vectors import products, ratio, rows, unit
from kdjax.types import Array

_SMALLEST_VARIANCE = 1e-5  # of VID, as in the reference implementation


def match_maps(
    student_features: Float[ArrayLike, "batch height width channel"],
    teacher_features: Float[ArrayLike, "batch height2 width2 channel2"],
) -> tuple[Float[Array, "batch _ _ channel"], Float[Array, "batch _ _ channel2"]]:
    """Average the taller of two maps down to the other's height and width.

    Returns:
        Both maps in float32, of equal height and width.

    Raises:
        UserError: arrays that are no maps, or different batch sizes.

    >>> [m.shape for m in match_maps(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 2, 2, 5)))]
    [(1, 2, 2, 3), (1, 2, 2, 5)]
    """
    return match(*map_pair(student_features, teacher_features))


def neuron_selectivity(
    student_features: Float[ArrayLike, "batch height width channel"],
    teacher_features: Float[ArrayLike, "batch height2 width2 channel2"],
) -> Float[Array, " batch"]:
    """NST: squared mean discrepancy of the two sets of channels, kernel <f_a, f_b>^2.

    f_a is channel a over the positions, divided by its length; k(S, T) = mean_ab <f_a, f_b>^2; the
    loss is k(S, S) + k(T, T) - 2 k(S, T). The numbers of channels may differ.

    Returns:
        [batch], between 0 and 2; a channel of zeros counts as orthogonal to all.

    Raises:
        UserError: arrays that are no maps, or different batch sizes.

    Source: Huang and Wang 2017 (arXiv 1707.01219), with the polynomial kernel of degree 2.

    >>> maps = jnp.array([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # two channels, each of one position
    >>> print(neuron_selectivity(maps, maps), neuron_selectivity(maps, maps[..., :1]))
    [0.] [0.5]
    """
    student, teacher = match_maps(student_features, teacher_features)
    s, t = (unit(channel_rows(f)) for f in (student, teacher))

    def kernel(x: Array, y: Array) -> Array:
        return jnp.mean(products(x, y) ** 2, axis=(1, 2))

    return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def factor_transfer(
    student_factors: Float[ArrayLike, "batch ..."], teacher_factors: Float[ArrayLike, "batch ..."]
) -> Float[Array, " batch"]:
    """FT: mean_j |f_s / ||f_s|| - f_t / ||f_t|||_j over all entries of the factors f.

    Returns:
        [batch]; factors of 0 count as 0.

    Raises:
        UserError: the shapes differ, or there is no second axis.

    Source: Kim, Park, Kwak 2018 (arXiv 1802.04977), with p = 1.

    >>> print(factor_transfer(jnp.eye(2), 3 * jnp.eye(2)))
    [0. 0.]
    """
    check_pair(student_factors, teacher_factors, "factors", "[batch, ...]")
    return jnp.mean(jnp.abs(unit(rows(student_factors)) - unit(rows(teacher_factors))), axis=-1)


def spatial_factor_transfer(
    student_factors: Float[ArrayLike, "batch height width channel"],
    teacher_factors: Float[ArrayLike, "batch height2 width2 channel2"],
) -> Float[Array, " batch"]:
    """FT on attention maps: `factor_transfer` of a_j = mean_c f_jc^2, positions j.

    Returns:
        [batch]; factors of 0 count as 0.

    Raises:
        UserError: arrays that are no maps, or different batch sizes.

    Source: Kim, Park, Kwak 2018 (arXiv 1802.04977); the form of a public implementation.

    >>> maps = jnp.ones((1, 2, 2, 3))
    >>> print(spatial_factor_transfer(maps, 2 * maps[..., :1]))
    [0.]
    """
    student, teacher = match_maps(student_factors, teacher_factors)
    return factor_transfer(*(jnp.mean(f**2, axis=-1) for f in (student, teacher)))


def activation_boundary(
    student_features: Float[ArrayLike, "batch height width channel"],
    teacher_features: Float[ArrayLike, "batch height width channel"],
    *,
    margin: Number = 1.0,
) -> Float[Array, " batch"]:
    """AB: squared hinge towards the sign of the teacher's activations, summed over the entries.

    max(s + m, 0)^2 where t <= 0, max(m - s, 0)^2 where t > 0; both before their ReLU.

    Returns:
        [batch].

    Raises:
        UserError: the shapes differ or are no maps, margin <= 0.

    Source: Heo et al. 2019 (arXiv 1811.03233), squared as in public code.

    >>> print(activation_boundary(jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 1, 1, 2))))
    [2.]
    """
    axes = "[batch, height, width, channel]"
    check_pair(student_features, teacher_features, "features", axes)
    check_positive("margin", margin)
    student, teacher = map_pair(student_features, teacher_features)
    wrong = jnp.where(teacher > 0, -student, student)
    return jnp.sum(rows(jax.nn.relu(wrong + margin) ** 2), axis=-1)


def variational_information(
    mean: Float[ArrayLike, "batch *positions channel"],
    teacher_features: Float[ArrayLike, "batch *positions channel"],
    log_scale: Float[ArrayLike, " channel"],
) -> Float[Array, " batch"]:
    """VID: mean of ((mu - t)^2 / v + log v) / 2, v = softplus(log_scale) + 1e-5 of each channel.

    A Gaussian bound on the mutual information, up to a constant.

    Args:
        mean: mu, a regressor's output for the student's features.
        teacher_features: t.
        log_scale: trained with the regressor.

    Returns:
        [batch]; negative where the fit is close.

    Raises:
        UserError: the shapes differ.

    Source: Ahn et al. 2019 (arXiv 1904.05835)

    >>> print(variational_information(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4)).round(4))
    [-0.1832]
    """
    check_pair(mean, teacher_features, "features", "[*batch, channel]")
    if jnp.shape(log_scale) != jnp.shape(mean)[-1:]:
        raise UserError(
            f"log_scale: shape {jnp.shape(log_scale)} must be {jnp.shape(mean)[-1:]}, one entry "
            "per channel"
        )
    mean, teacher = (jnp.asarray(f, jnp.float32) for f in (mean, teacher_features))
    # softplus, as log(1 + exp(.)) overflows
    variance = jax.nn.softplus(jnp.asarray(log_scale, jnp.float32)) + _SMALLEST_VARIANCE
    return jnp.mean(rows(0.5 * ((mean - teacher) ** 2 / variance + jnp.log(variance))), axis=-1)


def margin_relu_distance(
    student_features: Float[ArrayLike, "batch height width channel"],
    teacher_features: Float[ArrayLike, "batch height2 width2 channel"],
    margin: Float[ArrayLike, " channel"],
) -> Float[Array, " batch"]:
    """OFD: sum of (s - g)^2 where s > g or t > 0, with g = max(t, margin of the channel).

    Where the teacher is negative, the student is pushed down to g and no further. Both are before
    their ReLU; the teacher's map is averaged to the student's size.

    Args:
        student_features: s, the output of a connector.
        teacher_features: t.
        margin: of each channel, negative; see `negative_margin`.

    Returns:
        [batch].

    Raises:
        UserError: arrays that are no maps, different batch sizes or channels, a margin of another
            shape.

    Source: Heo et al. 2019 (arXiv 1904.01866).

    >>> s, t = jnp.array([[[[-3.0, -3.0]]]]), jnp.array([[[[-5.0, 1.0]]]])
    >>> print(margin_relu_distance(s, t, jnp.array([-1.0, -1.0])))
    [16.]
    """
    student, teacher = map_pair(student_features, teacher_features, channels=True)
    if jnp.shape(margin) != student.shape[-1:]:
        raise UserError(
            f"margin: shape {jnp.shape(margin)} must be {student.shape[-1:]}, one per channel"
        )
    teacher = pool(teacher, student.shape[1:3])
    target = jnp.maximum(teacher, jnp.asarray(margin, jnp.float32))
    counts = (student > target) | (teacher > 0)
    return jnp.sum(rows(jnp.where(counts, (student - target) ** 2, 0.0)), axis=-1)


def negative_margin(
    scale: Float[ArrayLike, "*layers channel"], bias: Float[ArrayLike, "*layers channel"]
) -> Float[Array, "*layers channel"]:
    """OFD's margin: the mean of the negative values of a normal variable after batch norm.

    m = b - a phi(b / a) / Phi(-b / a), a = |scale|, b = bias; -3 a where Phi(-b / a) <= 0.001, and
    min(b, 0) where a = 0.

    Returns:
        [*layers, channel], <= 0.

    Raises:
        UserError: the shapes differ.

    Source: Heo et al. 2019 (arXiv 1904.01866); the fallback of the published code.

    >>> [round(float(m), 3) for m in negative_margin(jnp.ones(2), jnp.array([0.0, 9.0]))]
    [-0.798, -3.0]
    """
    check_pair(scale, bias, "batch norm", "[*layers, channel]")
    deviation, bias = jnp.abs(jnp.asarray(scale, jnp.float32)), jnp.asarray(bias, jnp.float32)
    z = ratio(bias, deviation)
    negative = jax.scipy.special.ndtr(-z)
    usual = negative > 1e-3
    density = jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    margin = bias - deviation * density / jnp.where(usual, negative, 1.0)
    margin = jnp.where(usual, margin, -3 * deviation)
    return jnp.where(deviation > 0, margin, jnp.minimum(bias, 0.0))
