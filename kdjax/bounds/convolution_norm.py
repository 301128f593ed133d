"""Norms of convolutions as operators on images, from their kernels; host, float64.

Convolutions pad the image with kernel // 2 zeros on each side, as those of `models`. Biases do not
matter, and a batch norm in evaluation mode is a factor on the kernel's outputs.
"""

import numpy as np

from kdjax.bounds._backend import Numbers, check_integer
from kdjax.errors import UserError

_ENTRIES = 8_000_000  # of a matrix: an SVD of that size takes about a minute
_ROUNDING = 1 + 1e-12


def convolution_bound(
    kernel: Numbers, shape: tuple[int, int], *, stride: int = 1, groups: int = 1
) -> float:
    """Upper bound of a convolution's operator norm: that of a periodic convolution containing it.

    The zero-padded image lies on a torus large enough that no window wraps. There a convolution is
    one matrix a frequency, [out, in stride^2] (with a stride, a plain convolution of the image's
    stride^2 phases), and its norm is the largest of theirs. Unlike that of `operator_norm` the
    bound holds with certainty; it is exact for 1x1 kernels and tighter for larger images.

    Args:
        kernel: [height, width, in / groups, out].
        shape: height and width of the image.
        stride: in both directions.
        groups: the number of channels for a depthwise convolution.

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
        _torus_size(size, window, stride)
        for size, window in zip(shape, weights.shape, strict=False)
    ]
    table = np.zeros((*cells, *weights.shape[2:], stride, stride))
    for row, column in np.ndindex(weights.shape[:2]):
        down, top = divmod(row - weights.shape[0] // 2, stride)
        across, left = divmod(column - weights.shape[1] // 2, stride)
        table[down % cells[0], across % cells[1], ..., top, left] += weights[row, column]
    symbols = np.fft.rfft2(table, axes=(0, 1))  # the other half has the same norms
    symbols = symbols.real if max(cells) == 1 else symbols
    symbols = symbols.reshape(-1, weights.shape[3], weights.shape[4] * stride**2)
    return _largest_singular_value(symbols) * (_ROUNDING if weights.shape[:2] != (1, 1) else 1.0)


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
    outputs = [(size - k % 2) // stride + 1 for size, k in zip(shape, window, strict=True)]
    table = (group, *outputs, out, *shape, into)
    if np.prod(table) > _ENTRIES:
        raise UserError(
            f"kernel: its matrix has {np.prod(table):.2g} entries, at most {_ENTRIES:,} are taken; "
            "use convolution_bound"
        )
    matrix = np.zeros(table)
    for row, column in np.ndindex(window):
        out_rows, in_rows = _pixel_pairs(row - window[0] // 2, outputs[0], shape[0], stride)
        out_cols, in_cols = _pixel_pairs(column - window[1] // 2, outputs[1], shape[1], stride)
        index = (slice(None), out_rows[:, None], out_cols, slice(None), in_rows[:, None], in_cols)
        matrix[index] += weights[row, column]
    matrix = matrix.reshape(group, outputs[0] * outputs[1] * out, -1)
    return float(np.linalg.norm(matrix, 2, axis=(1, 2)).max())


def _by_group(kernel: Numbers, shape: tuple[int, int], stride: int, groups: int) -> np.ndarray:
    """Return the checked kernel as [height, width, groups, out / groups, in / groups]."""
    weights = np.asarray(kernel, np.float64)
    if weights.ndim != 4 or weights.size == 0 or not np.isfinite(weights).all():
        raise UserError(
            f"kernel: shape {weights.shape} must be [height, width, in / groups, out], finite"
        )
    for name, value in (("shape", shape), ("stride", stride), ("groups", groups)):
        check_integer(name, value, 1)
    if weights.shape[3] % groups:
        raise UserError(f"groups: {groups} must divide the {weights.shape[3]} output channels")
    parts = weights.reshape(*weights.shape[:3], groups, -1)
    return np.moveaxis(parts, 2, 4)


def _torus_size(size: int, window: int, stride: int) -> int:
    """Return the length of the padded image in strides."""
    pad = window // 2
    return (size - 1 + pad) // stride - (-pad) // stride + 1


def _pixel_pairs(
    offset: int, outputs: int, size: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the output pixels whose input pixel at `offset` lies in the image, and that pixel."""
    pixels = stride * np.arange(outputs) + offset
    inside = (pixels >= 0) & (pixels < size)
    return np.flatnonzero(inside), pixels[inside]


def _largest_singular_value(matrices: np.ndarray) -> float:
    """Return the largest singular value in a stack of complex matrices."""
    if 1 in matrices.shape[1:]:
        return float(np.sqrt((np.abs(matrices) ** 2).sum((1, 2)).max()))
    adjoint = matrices.conj().swapaxes(1, 2)
    gram = matrices @ adjoint if matrices.shape[1] <= matrices.shape[2] else adjoint @ matrices
    return float(np.sqrt(np.linalg.eigvalsh(gram)[:, -1].max()))
