"""Losses that apply a network's classifier to features: class maps, regions, frozen classifiers.

Class maps are the last linear layer applied at every position of the last feature map, [batch,
height, width, classes]; their mean over the positions is the logits.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from kdjax.errors import UserError
from kdjax.losses._checks import (
    Number,
    check_count,
    check_labels,
    check_not_negative,
    check_pair,
)
from kdjax.losses._maps import channel_rows, map_pair, pool, spatial_mean
from kdjax.losses._vectors import products, rows, unit
from kdjax.losses.decoupled import decoupled_kl
from kdjax.losses.divergence import forward_kl
from kdjax.types import Array

_REGIONS = "[batch, regions, classes]"


def softmax_regression(
    student_features: Float[ArrayLike, "batch ... channel"],
    teacher_features: Float[ArrayLike, "batch ... channel"],
    kernel: Float[ArrayLike, "channel classes"],
    *,
    regression_weight: Number = 1.0,
) -> Float[Array, " batch"]:
    """SRRL: mean (a_s - a_t)^2 + `regression_weight` mean_c ((a_s - a_t) W)_c^2.

    a is the mean over the positions, W the kernel of the teacher's classifier.

    Args:
        student_features: the output of a connector, of the teacher's width.
        teacher_features: the input of the teacher's classifier, before or after the mean.
        kernel: W; the bias cancels.
        regression_weight: the weight of the second summand, >= 0.

    Returns:
        [batch].

    Raises:
        UserError: different batch sizes or widths, a kernel of another width, a weight < 0.

    Source: Yang et al. 2021 (ICLR).

    >>> print(softmax_regression(jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.ones((2, 5))))
    [5.]
    """
    check_not_negative("regression_weight", regression_weight)
    student, teacher = (spatial_mean(f) for f in (student_features, teacher_features))
    check_pair(student, teacher, "features", "[batch, channel]")
    kernel = jnp.asarray(kernel, jnp.float32)
    if kernel.ndim != 2 or kernel.shape[0] != student.shape[1]:
        raise UserError(f"kernel: shape {kernel.shape} must be [{student.shape[1]}, classes]")
    gap = student - teacher
    through = products(gap, kernel.T)
    return jnp.mean(gap**2, axis=-1) + regression_weight * jnp.mean(through**2, axis=-1)


def class_activation(
    student_maps: Float[ArrayLike, "batch height width classes"],
    teacher_maps: Float[ArrayLike, "batch height2 width2 classes"],
    *,
    resolution: int = 2,
    normalize: bool = False,
    binarize: bool = False,
) -> Float[Array, " batch"]:
    """CAT-KD: mean squared difference of class maps, averaged to resolution x resolution.

    Args:
        student_maps: class maps.
        teacher_maps: class maps of any size.
        resolution: height and width to which both are averaged.
        normalize: divide each class's plane by its Euclidean length; planes of 0 stay 0.
        binarize: replace the teacher's maps by 1 where they exceed the mean absolute value of
            their plane, else 0.

    Returns:
        [batch].

    Raises:
        UserError: arrays that are no maps, different batch sizes or classes, resolution < 1.

    Source: Guo et al. 2023 (arXiv 2304.12777).

    >>> print(class_activation(jnp.ones((1, 4, 4, 3)), jnp.zeros((1, 8, 8, 3))))
    [1.]
    """
    check_count("resolution", resolution)
    maps = map_pair(student_maps, teacher_maps, channels=True)
    student, teacher = (channel_rows(pool(m, (resolution, resolution))) for m in maps)
    if binarize:
        level = jnp.mean(jnp.abs(teacher), axis=-1, keepdims=True)
        teacher = (teacher > level).astype(jnp.float32)
    if normalize:
        student, teacher = unit(student), unit(teacher)
    return jnp.mean(rows((student - teacher) ** 2), axis=-1)


def region_logits(
    class_maps: Float[ArrayLike, "batch height width classes"], *, grids: Sequence[int] = (1, 2, 4)
) -> Float[Array, "batch regions classes"]:
    """Average class maps over the cells of coarse to fine grids; a region is a cell.

    Returns:
        [batch, sum of grids^2, classes]; the region of grid 1 holds the logits.

    Raises:
        UserError: an array that is no map, a grid below 1.

    Source: Wei, Luo, Luo 2024 (arXiv 2403.13512)

    >>> region_logits(jnp.ones((1, 8, 8, 10))).shape
    (1, 21, 10)
    """
    maps, _ = map_pair(class_maps, class_maps)
    for grid in grids:
        check_count("grids", grid)
    cells = [pool(maps, (grid, grid)).reshape(len(maps), -1, maps.shape[-1]) for grid in grids]
    return jnp.concatenate(cells, axis=1)


def regional_kl(
    student_regions: Float[ArrayLike, "batch regions classes"],
    teacher_regions: Float[ArrayLike, "batch regions classes"],
    labels: Int[ArrayLike, " batch"],
    *,
    temperature: Number = 4.0,
) -> Float[Array, " batch"]:
    """SDD-KD: mean over the regions of r KL(teacher || student), region 0 being the image.

    r = 2 where the teacher is right in a region and wrong in region 0, or the reverse; else 1.

    Args:
        student_regions: see `region_logits`.
        teacher_regions: as the student's.
        labels: class indices of the images.
        temperature: T > 0.

    Returns:
        [batch], nats.

    Raises:
        UserError: shapes that disagree, labels that are not integers, temperature <= 0.

    Source: Wei, Luo, Luo 2024 (arXiv 2403.13512), without T^2.

    >>> z = jnp.zeros((1, 5, 3))
    >>> print(regional_kl(z, z, jnp.array([1])))
    [0.]
    """
    weights, _ = _region_weights(student_regions, teacher_regions, labels)
    values = forward_kl(student_regions, teacher_regions, temperature=temperature)
    return jnp.mean(weights * values, axis=-1)


def regional_decoupled_kl(
    student_regions: Float[ArrayLike, "batch regions classes"],
    teacher_regions: Float[ArrayLike, "batch regions classes"],
    labels: Int[ArrayLike, " batch"],
    *,
    alpha: Number = 1.0,
    beta: Number = 8.0,
    temperature: Number = 4.0,
) -> Float[Array, " batch"]:
    """SDD-DKD: `regional_kl` with `decoupled_kl` in place of the KL of each region.

    Returns:
        [batch], nats; NaN where a label lies outside [0, classes).

    Raises:
        UserError: as `regional_kl` and `decoupled_kl`.

    Source: Wei, Luo, Luo 2024 (arXiv 2403.13512), without T^2.

    >>> z = jnp.zeros((1, 5, 3))
    >>> print(regional_decoupled_kl(z, z, jnp.array([1])))
    [0.]
    """
    weights, labels = _region_weights(student_regions, teacher_regions, labels)
    values = decoupled_kl(
        student_regions, teacher_regions, labels, alpha=alpha, beta=beta, temperature=temperature
    )
    return jnp.mean(weights * values, axis=-1)


def _region_weights(
    student: ArrayLike, teacher: ArrayLike, labels: ArrayLike
) -> tuple[Array, Array]:
    """Return the weights [batch, regions], and the labels of the regions."""
    check_pair(student, teacher, "regions", _REGIONS)
    teacher = jnp.asarray(teacher)
    check_labels(teacher[:, 0], labels, "logits of a region")
    labels = jnp.broadcast_to(jnp.asarray(labels)[:, None], teacher.shape[:2])
    right = jnp.argmax(teacher, axis=-1) == labels
    return jnp.where(right == right[:, :1], 1.0, 2.0), labels
