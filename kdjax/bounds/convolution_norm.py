"""Norms of convolutions as operators on images, from their kernels; host, float64.

A convolution here is a layer of `models.conv`: kernel // 2 zeros on each side of the image. Biases
do not matter, and a batch norm in evaluation mode is a factor on the kernel's outputs.
"""

import numpy as np

from kdjax.bounds._backend import Numbers, check_whole
from kdjax.types import UserError

__all__ = ["convolution_bound", "convolution_norm_exact"]

_ENTRIES = 8_000_000  # of a matrix: an SVD of that size takes about a minute
_ROUNDING = 1 + 1e-12


def convolution_bound(
    kernel: Numbers, shape: tuple[int, int], *, stride: int = 1, groups: int = 1
) -> float:
    """Upper bound of a convolution's operator norm: that of the periodic one it is a piece of.

    The image lies, zeros around it, on a torus where nothing wraps. There a convolution is a matrix
    a frequency, [out, in stride^2] (one with a stride is a plain one of the image's stride^2
    phases), and its norm is the largest of theirs. Unlike that of `operator_norm` the bound is
    certain; it is exact for 1x1 kernels and for others the closer the larger the image.

    Args:
        kernel: [height, width, in / groups, out].
        shape: height and width of the image.
        stride: in both directions.
        groups: as many as there are channels for a depthwise convolution.

    Returns:
        Unit of output over input.

    Raises:
        UserError: a kernel of another rank or not finite, an image without pixels, a stride or
            groups below 1, groups that do not divide the outputs.

    Source: Sedghi, Gupta and Long 2019 (arXiv 1805.10408) for a periodic image; zeros around it,
        strides and groups are a reconstruction.

    >>> print(convolution_bound([[[[3.0]]]], (8, 8)))
    3.0
    """
    weights = _by_group(kernel, shape, stride, groups)
    cells = [
        _cells(size, window, stride) for size, window in zip(shape, weights.shape, strict=False)
    ]
    table = np.zeros((*cells, *weights.shape[2:], stride, stride))
    for row, column in np.ndindex(weights.shape[:2]):
        down, top = divmod(row - weights.shape[0] // 2, stride)
        across, left = divmod(column - weights.shape[1] // 2, stride)
        table[down % cells[0], across % cells[1], ..., top, left] += weights[row, column]
    symbols = np.fft.rfft2(table, axes=(0, 1))  # the other half has the same norms
    symbols = symbols.real if max(cells) == 1 else symbols
    symbols = symbols.reshape(-1, weights.shape[3], weights.shape[4] * stride**2)
    return _largest(symbols) * (_ROUNDING if weights.shape[:2] != (1, 1) else 1.0)


def convolution_norm_exact(
    kernel: Numbers, shape: tuple[int, int], *, stride: int = 1, groups: int = 1
) -> float:
    """Operator norm of a convolution, exact: the SVD of its matrix, one a group.

    Args:
        kernel: [height, width, in / groups, out].
        shape: height and width of the image.
        stride: in both directions.
        groups: of channels.

    Returns:
        Unit of output over input.

    Raises:
        UserError: as `convolution_bound`, and matrices of more than 8,000,000 entries.

    >>> print(convolution_norm_exact([[[[3.0]]]], (8, 8)))
    3.0
    """
    weights = _by_group(kernel, shape, stride, groups)
    window, (group, out, into) = weights.shape[:2], weights.shape[2:]
    made = [-(-size // stride) + (not wide % 2) for size, wide in zip(shape, window, strict=True)]
    table = (group, *made, out, *shape, into)
    if np.prod(table) > _ENTRIES:
        raise UserError(
            f"kernel: its matrix has {np.prod(table):.2g} entries, at most {_ENTRIES:,} are taken; "
            "use convolution_bound"
        )
    matrix = np.zeros(table)
    for row, column in np.ndindex(window):
        down, below = _meets(row - window[0] // 2, made[0], shape[0], stride)
        across, beside = _meets(column - window[1] // 2, made[1], shape[1], stride)
        at = (slice(None), down[:, None], across, slice(None), below[:, None], beside)
        matrix[at] += weights[row, column]
    matrix = matrix.reshape(group, made[0] * made[1] * out, -1)
    return float(np.linalg.norm(matrix, 2, axis=(1, 2)).max())


def _by_group(kernel: Numbers, shape: tuple[int, int], stride: int, groups: int) -> np.ndarray:
    """The kernel as [height, width, groups, out / groups, in / groups]."""
    weights = np.asarray(kernel, np.float64)
    if weights.ndim != 4 or weights.size == 0 or not np.isfinite(weights).all():
        raise UserError(
            f"kernel: shape {weights.shape} must be [height, width, in / groups, out], finite"
        )
    for name, value in (("shape", shape), ("stride", stride), ("groups", groups)):
        check_whole(name, value, 1)
    if weights.shape[3] % groups:
        raise UserError(f"groups: {groups} must divide the {weights.shape[3]} output channels")
    parts = weights.reshape(*weights.shape[:3], groups, -1)
    return np.moveaxis(parts, 2, 4)


def _cells(size: int, window: int, stride: int) -> int:
    """How many strides the padded image is long."""
    pad = window // 2
    return (size - 1 + pad) // stride - (-pad) // stride + 1


def _meets(offset: int, made: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Output pixels whose pixel at `offset` lies in the image, and which one it is."""
    there = stride * np.arange(made) + offset
    inside = (there >= 0) & (there < size)
    return np.flatnonzero(inside), there[inside]


def _largest(matrices: np.ndarray) -> float:
    """The largest singular value in a stack of complex matrices."""
    if 1 in matrices.shape[1:]:
        return float(np.sqrt((np.abs(matrices) ** 2).sum((1, 2)).max()))
    other = matrices.conj().swapaxes(1, 2)
    gram = matrices @ other if matrices.shape[1] <= matrices.shape[2] else other @ matrices
    return float(np.sqrt(np.linalg.eigvalsh(gram)[:, -1].max()))
