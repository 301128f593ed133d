"""Losses that compare two layers' features of the same images, one number per example.

Student first, teacher second. Feature maps are [batch, height, width, channel]. Losses have no
parameters: where widths differ, give the student a projector (`models.with_adapters`). All is
computed in float32, stays finite at zero features, and is never averaged over the batch. Nothing
is detached unless a docstring says so.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.errors import UserError
from kdjax.losses._checks import check_labels, check_pair, check_positive
from kdjax.losses._maps import pool
from kdjax.losses._types import Features, Labels, Number, PerExample
from kdjax.losses._vectors import norm, ratio, rows, unit
from kdjax.types import Array


def feature_mse(student_features: Features, teacher_features: Features) -> Float[Array, " batch"]:
    """Mean squared difference of two layers: mean_j (s_j - t_j)^2 over all but the batch axis.

    Returns:
        [batch] float32.

    Raises:
        UserError: the shapes differ, or there is no second axis.

    Source: FitNets, Romero et al. 2015 (arXiv 1412.6550), equation 3, without its factor 1/2.

    >>> feature_mse(jnp.zeros((2, 4)), jnp.ones((2, 4)))
    Array([1., 1.], dtype=float32)
    """
    check_pair(student_features, teacher_features, "features", "[batch, ...]")
    return jnp.mean((rows(student_features) - rows(teacher_features)) ** 2, axis=-1)


def norm_direction(
    student_features: Float[ArrayLike, "*batch width"],
    teacher_features: Float[ArrayLike, "*batch width"],
    class_means: Float[ArrayLike, "classes width"],
    labels: Labels,
) -> PerExample:
    """ND: 1 - <f_s, e_y> / max(||f_s||, ||f_t||), e_y the direction of the label's class mean.

    The gradient moves a student feature shorter than the teacher's along e_y, which turns and
    lengthens it. A feature at least as long is only turned: the loss is 1 - cos. The maximum is not
    detached. A class mean of 0, or two features of 0, give 1 without gradient.

    Args:
        student_features: f_s, the input of the last linear layer.
        teacher_features: f_t of the same images.
        class_means: mean of f_t over the training images of each class.
        labels: y, class indices.

    Returns:
        [*batch], between 0 and 2; NaN where a label lies outside [0, classes).

    Raises:
        UserError: features that differ in shape, class means of another width, labels that do not
            fit or are not integers.

    Source: Wang et al. 2023 (arXiv 2305.17007); equal lengths are treated as in their code.

    >>> f_s, f_t, means = jnp.array([1.0, 0.0]), jnp.array([4.0, 0.0]), jnp.array([[2.0, 0.0]])
    >>> print(norm_direction(f_s, f_t, means, jnp.array(0)))
    0.75
    """
    check_pair(student_features, teacher_features, "features", "[*batch, width]")
    direction = _direction_of(class_means, labels, student_features)
    student, teacher = (jnp.asarray(f, jnp.float32) for f in (student_features, teacher_features))
    # ||f_s||^2 - ||f_t||^2 as one sum is exactly 0 for equal features; two separately rounded norms
    # might differ. jnp.maximum would give half of the gradient to each of two equal norms.
    excess = jnp.sum((student - teacher) * (student + teacher), axis=-1)
    longest = jnp.where(excess >= 0, norm(student), norm(teacher))
    return 1 - ratio(jnp.sum(student * direction, axis=-1), longest)


def class_mean_cosine(
    student_features: Float[ArrayLike, "*batch width"],
    class_means: Float[ArrayLike, "classes width"],
    labels: Labels,
) -> PerExample:
    """ND's direction term: 1 - cos(f_s, e_y), e_y the direction of the label's class mean.

    Returns:
        [*batch], between 0 and 2; 1 without gradient where either vector is 0, NaN where a label
        lies outside [0, classes).

    Raises:
        UserError: class means of another width, labels that do not fit or are not integers.

    Source: Wang et al. 2023 (arXiv 2305.17007), an ablation of ND.

    >>> print(class_mean_cosine(jnp.array([0.0, 3.0]), jnp.array([[2.0, 0.0]]), jnp.array(0)))
    1.0
    """
    direction = _direction_of(class_means, labels, student_features)
    student = jnp.asarray(student_features, jnp.float32)
    return 1 - jnp.sum(unit(student) * direction, axis=-1)


def _direction_of(class_means: ArrayLike, labels: ArrayLike, features: ArrayLike) -> Array:
    shape, means = jnp.shape(features), jnp.asarray(class_means, jnp.float32)
    if len(shape) < 1 or means.ndim != 2 or means.shape[-1] != shape[-1]:
        raise UserError(
            f"class_means: shape {means.shape} must be [classes, width] for features of shape "
            f"{shape}"
        )
    check_labels(features, labels, "features")
    labels = jnp.asarray(labels)
    # JAX would read the padding label -1 as the last class.
    labels = jnp.where(labels < 0, means.shape[0], labels)
    return unit(means).at[labels].get(mode="fill", fill_value=jnp.nan)


def stepwise_norm(
    student_features: Float[ArrayLike, "*batch width"], *, step: Number = 1.0
) -> PerExample:
    """ND's norm term (SIFN): (||f|| - (||f|| as a constant + step))^2, which lengthens features.

    The value is always step^2; the gradient is -2 step f / ||f||, and 0 at f = 0.

    Returns:
        [*batch], step^2.

    Raises:
        UserError: no axis, step <= 0.

    Source: Wang et al. 2023 (arXiv 2305.17007), an ablation of ND; Xu et al. 2019
    (arXiv 1811.07456), equation 6, with the target of the same forward pass.

    >>> print(jax.grad(stepwise_norm)(jnp.array([3.0, 4.0])).round(3))
    [-1.2 -1.6]
    """
    check_positive("step", step)
    if jnp.ndim(student_features) < 1:
        raise UserError("features: a scalar must be [*batch, width]")
    length = norm(jnp.asarray(student_features, jnp.float32))
    # Compute ||f|| - ||f|| first: added to a length of 1e8, a step of 1 would be rounded away.
    return ((length - jax.lax.stop_gradient(length)) - step) ** 2


def attention_transfer(
    student_features: Float[ArrayLike, "batch ... student_channel"],
    teacher_features: Float[ArrayLike, "batch ... teacher_channel"],
) -> Float[Array, " batch"]:
    """Attention transfer: mean_j (a_s / ||a_s|| - a_t / ||a_t||)_j^2, a_j = mean_c f_jc^2.

    j runs over the positions; the numbers of channels may differ, the positions may not.

    Returns:
        [batch], at most 2 / positions; a map of zeros counts as 0.

    Raises:
        UserError: different batch sizes or positions, or no axis between batch and channel.

    Source: Zagoruyko and Komodakis 2017 (arXiv 1612.03928), equation 2 with p = 2, as a mean.

    >>> loud = jnp.array([[[1.0], [0.0]]])  # one image of two positions and one channel
    >>> print(attention_transfer(loud, 5 * loud), attention_transfer(loud, 1 - loud))
    [0.] [1.]
    """
    shapes = jnp.shape(student_features), jnp.shape(teacher_features)
    if len(shapes[0]) < 3 or shapes[0][:-1] != shapes[1][:-1]:
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must be [batch, height, width, "
            "channel], equal in all axes but the channel"
        )
    s, t = (
        unit(rows(jnp.mean(jnp.asarray(f, jnp.float32) ** 2, axis=-1)))
        for f in (student_features, teacher_features)
    )
    return jnp.mean((s - t) ** 2, axis=-1)


def hierarchical_context(
    student_features: Float[ArrayLike, "batch height width channel"],
    teacher_features: Float[ArrayLike, "batch height width channel"],
) -> Float[Array, " batch"]:
    """ReviewKD's HCL of one level: weighted mean squared differences of a pyramid of pooled maps.

    The full map has weight 1; its averages over 4 x 4, 2 x 2 and 1 x 1 cells have weights 1/2, 1/4
    and 1/8, in this order; the sum is divided by the sum of the weights. Levels with as many cells
    as the map has rows, or more, are omitted (columns do not count: fewer columns than cells are
    possible). Add up the losses of several layers.

    Returns:
        [batch] float32.

    Raises:
        UserError: the shapes differ or are not [batch, height, width, channel].

    Source: Chen et al. 2021 (arXiv 2104.09044), section 3.3; weights of the published code.

    >>> print(hierarchical_context(jnp.zeros((1, 8, 8, 3)), jnp.ones((1, 8, 8, 3))))
    [1.]
    """
    axes = "[batch, height, width, channel]"
    check_pair(student_features, teacher_features, "features", axes)
    # Pooling is linear: pool the difference, not the two maps.
    gap = jnp.asarray(student_features, jnp.float32) - jnp.asarray(teacher_features, jnp.float32)
    total, weight, weights = jnp.mean(rows(gap) ** 2, axis=-1), 1.0, 1.0
    for cells in (4, 2, 1):
        if cells < gap.shape[1]:
            weight /= 2
            weights += weight
            total += weight * jnp.mean(rows(pool(gap, (cells, cells))) ** 2, axis=-1)
    return total / weights
