"""Losses on the relations between consecutive layers, one number per example.

Student and teacher are sequences of equal length of maps [batch, height, width, channel], from
shallow to deep. All is computed in float32 and stays finite at zero maps.
"""

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.errors import UserError
from kdjax.losses._checks import check_count
from kdjax.losses._maps import channel_rows, map_pair, match
from kdjax.losses._vectors import products, rows, unit
from kdjax.types import Array

Maps = Sequence[Float[ArrayLike, "batch _ _ _"]]

_CANDIDATES = 3  # KDSVD's additional student vectors, as in the reference implementation
_BREADTH = 8.0  # KDSVD's kernel width


def flow_of_solution(student_maps: Maps, teacher_maps: Maps) -> Float[Array, " batch"]:
    """FSP: sum over consecutive layers of mean (G_s - G_t)^2, G_ab = mean_j low_ja high_jb.

    The taller of two consecutive maps is averaged down to the other's size. Student and teacher
    have the same channels.

    Returns:
        [batch].

    Raises:
        UserError: fewer than two maps, unequal numbers of maps, arrays that are no maps, different
            channels.

    Source: Yim et al. 2017 (CVPR).

    >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 3))]
    >>> print(flow_of_solution(maps, [0 * m for m in maps]))
    [1.]
    """
    pairs = _pairs(student_maps, teacher_maps, channels=True)

    def flow(low: Array, high: Array) -> Array:
        low, high = (channel_rows(m) for m in match(low, high))
        return products(low, high) / low.shape[-1]

    return sum(
        (
            jnp.mean(rows(flow(s_low, s_high) - flow(t_low, t_high)) ** 2, axis=-1)
            for (s_low, t_low), (s_high, t_high) in pairwise(pairs)
        ),
        jnp.zeros(pairs[0][0].shape[0]),
    )


def singular_vectors(
    student_maps: Maps, teacher_maps: Maps, *, count: int = 1, channels: bool = False
) -> Float[Array, " batch"]:
    """KDSVD: sum (R_s - R_t)^2, R_ij = exp(-(v_i - u_j)^2 / 8) of leading singular vectors.

    v and u are right singular vectors of consecutive layers; each map is a matrix of (channel,
    height) x width. The teacher's first `count` vectors are signed so that their largest entry is
    positive, and multiplied by their share of the singular values. For each of them, the student's
    vector is the one of its first count + 3 with the largest |cosine|, signed so that the cosine is
    positive, times the teacher's share. The sum runs over the entries, the vectors and the pairs of
    layers. The teacher is detached.

    Args:
        student_maps: channels may differ from the teacher's.
        teacher_maps: of the same widths.
        count: number of vectors.
        channels: take maps as (height, width) x channel; then channels must be equal, and widths
            may differ.

    Returns:
        [batch]; where singular values coincide the gradient omits rotations between their vectors.

    Raises:
        UserError: fewer than two maps, unequal numbers of maps, arrays that are no maps, vectors of
            different lengths, count < 1.

    Source: Lee, Kim, Song 2018 (arXiv 1807.06819); scale and sign of public
    implementations.

    >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 4, 4, 3))]
    >>> print(singular_vectors(maps, maps))
    [0.]
    """
    check_count("count", count)
    pairs = _pairs(student_maps, teacher_maps, channels=channels)
    aligned = [_aligned_vectors(*pair, count, channels) for pair in pairs]

    def kernel(low: Array, high: Array) -> Array:
        return jnp.exp(-((high[:, :, None] - low[:, None]) ** 2) / _BREADTH)

    return sum(
        (
            jnp.sum(rows(kernel(s_low, s_high) - kernel(t_low, t_high)) ** 2, axis=-1)
            for (s_low, t_low), (s_high, t_high) in pairwise(aligned)
        ),
        jnp.zeros(pairs[0][0].shape[0]),
    )


def _pairs(student: Maps, teacher: Maps, *, channels: bool) -> list[tuple[Array, Array]]:
    if len(student) != len(teacher) or len(student) < 2:
        raise UserError(
            f"maps: student has {len(student)} and teacher {len(teacher)}; the numbers must be "
            "equal, and at least two"
        )
    return [map_pair(s, t, channels=channels) for s, t in zip(student, teacher, strict=True)]


def _aligned_vectors(
    student: Array, teacher: Array, count: int, channels: bool
) -> tuple[Array, Array]:
    """Return student and teacher vectors [batch, length, count] of one layer."""
    s, t = (_matrices(maps, channels) for maps in (student, jax.lax.stop_gradient(teacher)))
    if s.shape[-1] != t.shape[-1]:
        axis = "channels" if channels else "width"
        raise UserError(
            f"maps: student {student.shape} and teacher {teacher.shape} must have equal {axis}"
        )
    values, t_rows = _spectrum(t)
    t_rows, share = t_rows[:, :count], unit(values[:, :count])
    peak = jnp.argmax(jnp.abs(t_rows), axis=-1, keepdims=True)
    t_rows = t_rows * jnp.where(jnp.take_along_axis(t_rows, peak, axis=-1) < 0, -1.0, 1.0)
    s_rows = _spectrum(s)[1][:, : count + _CANDIDATES]
    cosines = products(t_rows, s_rows)
    nearest = jnp.argmax(jnp.abs(cosines), axis=-1, keepdims=True)
    sign = jnp.where(jnp.take_along_axis(cosines, nearest, axis=-1) < 0, -1.0, 1.0)
    s_rows = jnp.take_along_axis(s_rows, nearest, axis=1) * sign
    weight = share[..., None]
    return jnp.swapaxes(s_rows * weight, 1, 2), jnp.swapaxes(t_rows * weight, 1, 2)


def _matrices(maps: Array, channels: bool) -> Array:
    columns = maps.shape[-1] if channels else maps.shape[2]
    if not channels:
        maps = maps.transpose(0, 3, 1, 2)
    return maps.reshape(maps.shape[0], -1, columns)


def _spectrum(matrices: Array) -> tuple[Array, Array]:
    """Return the singular values and right vectors, as rows, of [batch, n, m]; largest first.

    They come from the m x m products of the columns: the decomposition of matrices of many more
    rows than columns takes a hundred times longer.
    """
    columns = jnp.swapaxes(matrices, 1, 2)
    values, vectors = _eigenvectors(products(columns, columns))
    size = min(matrices.shape[1:])
    values = jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(values), 0.0))
    return values[:, ::-1][:, :size], jnp.swapaxes(vectors, 1, 2)[:, ::-1][:, :size]


@jax.custom_jvp
def _eigenvectors(symmetric: Array) -> tuple[Array, Array]:
    """Return eigenvalues, ascending, and eigenvectors as columns of [batch, m, m] matrices."""
    return _decompose(symmetric)


@jax.custom_batching.custom_vmap
def _decompose(symmetric: Array) -> tuple[Array, Array]:
    # Of a batch on a CPU jax 0.10 may wait for its own threads for ever.
    one_by_one = functools.partial(jax.lax.map, jnp.linalg.eigh)
    values, vectors = jax.lax.platform_dependent(symmetric, cpu=one_by_one, default=jnp.linalg.eigh)
    return values, vectors


@_decompose.def_vmap
def _(size: int, batched: list[bool], symmetric: Array) -> Any:
    """Take the members of a sweep one by one, too."""
    del size, batched
    parts = _decompose(symmetric.reshape(-1, *symmetric.shape[2:]))
    return tuple(part.reshape(*symmetric.shape[:2], *part.shape[1:]) for part in parts), (
        True,
        True,
    )


@_eigenvectors.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    values, vectors = _eigenvectors(primals[0])
    transposed = jnp.swapaxes(vectors, 1, 2)
    turn = products(products(transposed, jnp.swapaxes(tangents[0], 1, 2)), transposed)  # V' dG V
    # JAX's own derivative divides by the gaps of the values, which may be 0.
    gap = values[:, None] - values[:, :, None]
    apart = jnp.abs(gap) > 1e-6 * values[:, -1:, None]
    inside = jnp.where(apart, turn / jnp.where(apart, gap, 1.0), 0.0)
    tangent = products(vectors, jnp.swapaxes(inside, 1, 2))
    return (values, vectors), (jnp.diagonal(turn, axis1=1, axis2=2), tangent)
