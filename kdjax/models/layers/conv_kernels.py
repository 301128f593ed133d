"""Kernels for a convolution and its two gradients on the CPU.

A convolution is one trilinear form T(x, kernel, y); a *contraction* computes one of its three slots
from the other two (`conv`). lax has the fastest forward pass. Its weight gradient
convolves transposed images with a window as large as an image, which costs three to five forward
passes; one matrix product over all pixels costs one or two. (A loop over chunks of the batch is
faster in isolation, but slower in training steps.) The choices of `contract` and `is_products`
follow the measurements of `benchmarks/conv.py`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]
X, KERNEL, Y = 0, 1, 2  # the slots of the trilinear form


class Geometry(NamedTuple):
    """Arguments of the three contractions besides their two arrays."""

    size: tuple[int, int]  # height and width of x
    window: tuple[int, int]  # height and width of the kernel
    strides: tuple[int, int]
    padding: Padding
    groups: int


def contract(out: int, geometry: Geometry, a: Array, b: Array) -> Array:
    """Compute slot `out` from the other two, in ascending order, by the fastest form.

    Args:
      out: X, KERNEL or Y.
      geometry: sizes, strides and padding.
      a: x [batch, height, width, in]; the kernel [kernel_height, kernel_width, in / groups, out]
        where x is computed.
      b: y [batch, height', width', out]; the kernel where y is computed.

    Returns:
      The array of slot `out`, in the type of `a`.
    """
    if is_products(out, geometry, a.shape):
        return _by_products(out, geometry, a, b)
    if out == KERNEL and geometry.groups == 1:
        # `_by_shifts` copies x or y for each tap along an axis, `_by_patches` x for all taps.
        if geometry.strides == (1, 1) and max(geometry.window) <= 5:
            return _by_shifts(geometry, a, b)
        if math.prod(geometry.window) <= 3 * math.prod(geometry.strides):
            return _by_patches(geometry, a, b)
    return _by_lax(out, geometry, a, b)


def is_products(out: int, geometry: Geometry, first: tuple[int, ...]) -> bool:
    """Return True where a matrix product per kernel tap is the fastest form.

    `first` is the shape of the first array. Such products need no special rule under `vmap`.
    """
    if geometry.window == (1, 1):
        return True
    if geometry.groups != 1:
        # Depthwise as sums of shifted products: 4 to 350 times faster than lax, whose grouped
        # convolutions use one thread and scalar code.
        return _is_depthwise(out, geometry.groups, first)
    if out == Y:
        return first[-1] == 1
    return out == X and geometry.strides != (1, 1)


def convolve(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Convolve by lax: y [batch, height', width', out]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _by_lax(out: int, geometry: Geometry, a: Array, b: Array) -> Array:
    """Contract with lax's convolution or one of its two transposes."""
    if out == Y:
        return convolve(a, b, geometry)
    if out == X and geometry.groups == 1 and geometry.strides == (1, 1):
        return _by_flipped_kernel(geometry, a, b)
    if out == X:
        shape = (b.shape[0], *geometry.size, a.shape[2] * geometry.groups)
        operand = jax.ShapeDtypeStruct(shape, a.dtype)
        return jax.linear_transpose(lambda x: convolve(x, a, geometry), operand)(b)[0]
    shape = (*geometry.window, a.shape[-1] // geometry.groups, b.shape[-1])
    operand = jax.ShapeDtypeStruct(shape, a.dtype)
    return jax.linear_transpose(lambda kernel: convolve(a, kernel, geometry), operand)(b)[0]


def _by_flipped_kernel(geometry: Geometry, kernel: Array, y: Array) -> Array:
    """Input gradient at stride 1: y convolved with the kernel, flipped in height and width."""
    # Without the barrier XLA folds the flip into the convolution: in a loop 10 to 70 times slower.
    kernel = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    padding = []
    for axis, window in enumerate(geometry.window):
        before = window - 1 - geometry.padding[axis][0]
        padding.append((before, geometry.size[axis] - y.shape[axis + 1] + window - 1 - before))
    return convolve(y, kernel, geometry._replace(padding=tuple(padding)))


def _by_products(out: int, geometry: Geometry, a: Array, b: Array) -> Array:
    """Contract by a matrix product per kernel tap and group."""
    height, width = geometry.window
    taps = [(i, j) for i in range(height) for j in range(width)]
    if out == Y:
        terms = [_product(out, geometry, _pixels(a, geometry, tap), b[tap]) for tap in taps]
        return functools.reduce(jnp.add, terms).astype(a.dtype)
    if out == KERNEL:
        blocks = [_product(out, geometry, _pixels(a, geometry, tap), b) for tap in taps]
        return jnp.stack(blocks).reshape(height, width, *blocks[0].shape).astype(a.dtype)
    terms = [_put_pixels(_product(out, geometry, a[tap], b), geometry, tap) for tap in taps]
    (top, _), (left, _) = geometry.padding
    total = functools.reduce(jnp.add, terms)
    return total[:, top : top + geometry.size[0], left : left + geometry.size[1]].astype(a.dtype)


def _by_shifts(geometry: Geometry, x: Array, y: Array) -> Array:
    """Weight gradient at stride 1: shifts along the width on x's side, along the height on y's.

    kernel[i, j] = sum over rows r, columns q of x[r, q + j - left] y[r - i + top, q]: with the
    shifts by j stacked in x's channels and those by i in y's, all taps are one matrix product, of
    as many multiplications as the convolution.
    """
    (top, _), (left, _) = geometry.padding
    height, width = geometry.window
    x, y = lax.optimization_barrier((x, y))  # otherwise each shift computes x and y again
    x = _stack_shifts(x, 2, [left - j for j in range(width)], y.shape[2])
    y = _stack_shifts(y, 1, [i - top for i in range(height)], x.shape[1])
    taps = _over_pixels(x, y).reshape(width, -1, height, y.shape[-1] // height)
    return taps.transpose(2, 0, 1, 3).astype(x.dtype)


def _stack_shifts(x: Array, axis: int, shifts: list[int], size: int) -> Array:
    """Stack x, moved by each of `shifts` along an axis of length `size`, in its channels.

    XLA writes a sum of padded arrays in one pass, a concatenation in several.
    """
    channels, terms = x.shape[-1], []
    for position, shift in enumerate(shifts):
        pads = [(0, 0, 0)] * 4
        pads[axis] = (shift, size - x.shape[axis] - shift, 0)
        pads[3] = (position * channels, (len(shifts) - 1 - position) * channels, 0)
        terms.append(lax.pad(x, jnp.zeros((), x.dtype), pads))
    return functools.reduce(jnp.add, terms)


def _by_patches(geometry: Geometry, x: Array, y: Array) -> Array:
    """Weight gradient as one product of all patches [pixels, taps x in] and y."""
    height, width = geometry.window
    taps = [(i, j) for i in range(height) for j in range(width)]
    patches = jnp.concatenate([_pixels(x, geometry, tap) for tap in taps], axis=-1)
    return _over_pixels(patches, y).reshape(height, width, x.shape[-1], -1).astype(x.dtype)


def _over_pixels(a: Array, b: Array) -> Array:
    """Sum the outer products of channels over all images and pixels, in float32 at least."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    # Contracting three axes without flattening them is up to three times slower.
    a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=wide)


def _product(out: int, geometry: Geometry, a: Array, b: Array) -> Array:
    """Contract two of pixels [b, h, w, in], kernel [in / groups, out] and y at one tap."""
    wide = jnp.promote_types(a.dtype, jnp.float32)  # bfloat16 would round every partial sum
    if geometry.groups == 1:
        if out == X:
            a, b = b, a
        axes = {Y: ((3,), (0,)), X: ((3,), (1,)), KERNEL: ((0, 1, 2), (0, 1, 2))}[out]
        return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide)
    depthwise = _is_depthwise(out, geometry.groups, a.shape)
    a, b = (x.reshape(*x.shape[:-1], geometry.groups, -1) for x in (a, b))
    if depthwise:
        # [.., group, 1] times [.., group, out / groups]
        if out == Y:
            product = a.astype(wide) * b[0]
        elif out == X:
            product = (b.astype(wide) * a[0]).sum(-1, keepdims=True)
        else:
            product = (a.astype(wide) * b).sum((0, 1, 2))[None]
    else:
        form = {Y: "bhwgi,igo->bhwgo", X: "igo,bhwgo->bhwgi", KERNEL: "bhwgi,bhwgo->igo"}[out]
        product = jnp.einsum(form, a, b, preferred_element_type=wide)
    return product.reshape(*product.shape[:-2], -1)


def _is_depthwise(out: int, groups: int, first: tuple[int, ...]) -> bool:
    """Return True if each group has one input channel; `first` as in `is_products`."""
    return (first[-2] if out == X else first[-1] // groups) == 1


def _pixels(x: Array, geometry: Geometry, tap: tuple[int, int]) -> Array:
    """Take the pixels of x that the kernel's tap reads, one for each pixel of y."""
    starts, limits = [0], [x.shape[0]]
    for axis in (0, 1):
        starts.append(tap[axis])
        limits.append(tap[axis] + _reach(geometry, axis))
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    strides = (1, *geometry.strides, 1)
    return lax.slice(x, (*starts, 0), (*limits, x.shape[-1]), strides)


def _put_pixels(pixels: Array, geometry: Geometry, tap: tuple[int, int]) -> Array:
    """Apply the transpose of `_pixels`: put pixels into zeros of the padded size."""
    pads = [(0, 0, 0)]
    for axis in (0, 1):
        padded = geometry.size[axis] + sum(geometry.padding[axis])
        after = padded - tap[axis] - _reach(geometry, axis)
        pads.append((tap[axis], after, geometry.strides[axis] - 1))
    return lax.pad(pixels, jnp.zeros((), pixels.dtype), (*pads, (0, 0, 0)))


def _reach(geometry: Geometry, axis: int) -> int:
    """Count the padded pixels from the first to the last that one tap reads."""
    padded = geometry.size[axis] + sum(geometry.padding[axis])
    stride = geometry.strides[axis]
    return (padded - geometry.window[axis]) // stride * stride + 1
