"""The convolution that all networks use, with its own gradients and batching rule on the CPU.

A convolution is one trilinear form T(x, kernel, y) = <conv(x, kernel), y>. Leaving out y gives
the convolution, leaving out x its input gradient, leaving out the kernel its weight gradient; the
gradient of any of the three is the other two. So three contractions with one rule close under
differentiation of any order (reverse mode; `jax.jvp` works off the CPU only).

Why not leave it to lax: `vmap` over kernels (a sweep) turns a convolution into a grouped one, whose
weight gradient is up to 80 times slower on the CPU than the members one after another; and a few
shapes are faster as matrix products. `benchmarks/conv.py` measures both.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from kdjax.types import UserError

__all__ = ["Conv", "conv2d"]

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]
X, KERNEL, Y = 0, 1, 2  # the slots of the trilinear form


class Conv(nn.Module):
    """A convolution with PyTorch's padding: k // 2 zeros on each side, whatever the stride.

    Parameters: "kernel" [kernel_height, kernel_width, in / groups, out], He normal by fan-out,
    and "bias" [out], zero; both float32, cast to `dtype` for the computation.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    groups: int = 1
    use_bias: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [batch, height, width, in] to [batch, height', width', features]."""
        if x.ndim != 4:
            raise UserError(f"images are [batch, height, width, channel], not of shape {x.shape}")
        height, width = self.kernel_size
        shape = (height, width, x.shape[-1] // self.groups, self.features)
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        padding = ((height // 2, height // 2), (width // 2, width // 2))
        x = conv2d(x, kernel, strides=self.strides, padding=padding, groups=self.groups)
        return x if bias is None else x + bias


class _Geometry(NamedTuple):
    """All that the three contractions must know beside their two arrays."""

    size: tuple[int, int]  # height and width of x
    window: tuple[int, int]  # height and width of the kernel
    strides: tuple[int, int]
    padding: Padding
    groups: int


def conv2d(
    x: Array, kernel: Array, *, strides: tuple[int, int], padding: Padding, groups: int = 1
) -> Array:
    """Convolve images with a kernel (cross-correlation, as everywhere in deep learning).

    On the CPU `vmap` over the kernel is unrolled over the members, so that compilation time
    grows with their number; elsewhere it is lax's grouped convolution.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel_height, kernel_width, in / groups, out], of the type of `x`.
      strides: vertical and horizontal step.
      padding: zeros before and after, vertically and horizontally.
      groups: number of channel groups that do not see each other.

    Returns:
      [batch, height', width', out], in the type of `x`.

    >>> x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    >>> conv2d(x, kernel, strides=(2, 2), padding=((1, 1), (1, 1))).shape
    (2, 4, 4, 5)
    """
    size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    geometry = _Geometry(size, window, strides, padding, groups)
    if jax.default_backend() != "cpu":
        return _lax(x, kernel, geometry)
    return _contraction(Y, geometry)(x, kernel)


@functools.cache
def _contraction(out: int, geometry: _Geometry) -> Callable[[Array, Array], Array]:
    """Make the contraction that yields slot `out` from the other two, in ascending order."""
    first, second = (slot for slot in (X, KERNEL, Y) if slot != out)

    @jax.custom_batching.custom_vmap
    def single(a: Array, b: Array) -> Array:
        form = _by_products if _is_products(out, geometry, a.shape) else _by_lax
        return form(out, geometry, a, b)

    @single.def_vmap
    def rule(members: int, batched: list[bool], a: Array, b: Array) -> tuple[Array, bool]:
        if _is_products(out, geometry, a.shape[batched[0] :]):
            axes = tuple(0 if is_batched else None for is_batched in batched)
            form = functools.partial(_by_products, out, geometry)
            return jax.vmap(form, in_axes=axes)(a, b), True
        if out != KERNEL and not batched[(first, second).index(KERNEL)]:
            return _fold_members(contract, out, a, b), True
        pairs = [(a[i] if batched[0] else a, b[i] if batched[1] else b) for i in range(members)]
        return jnp.stack([contract(*pair) for pair in pairs]), True

    contract = jax.custom_vjp(single)

    def forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
        # `contract` and not `single`: a second derivative goes through here.
        return contract(a, b), (a, b)

    def backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
        known = {first: saved[0], second: saved[1], out: cotangent}
        return _solve(first, geometry, known), _solve(second, geometry, known)

    contract.defvjp(forward, backward)
    return contract


def _solve(slot: int, geometry: _Geometry, known: dict[int, Array]) -> Array:
    operands = [known[other] for other in (X, KERNEL, Y) if other != slot]
    return _contraction(slot, geometry)(*operands)


def _fold_members(contract: Callable[..., Array], out: int, a: Array, b: Array) -> Array:
    """One kernel for all members: they are a larger batch."""
    images, kernel = (a, b) if out == Y else (b, a)
    folded = images.reshape(-1, *images.shape[2:])
    result = contract(folded, kernel) if out == Y else contract(kernel, folded)
    return result.reshape(*images.shape[:2], *result.shape[1:])


def _is_products(out: int, geometry: _Geometry, first: tuple[int, ...]) -> bool:
    """Decide by what was measured on the CPU between lax and a matrix product per kernel tap."""
    if geometry.window == (1, 1):
        return True
    if geometry.groups != 1:
        # Depthwise as sums of shifted products: 4 to 350 times faster than lax, whose grouped
        # convolutions run one thread and scalar code.
        return _is_depthwise(out, geometry.groups, first)
    if out == Y:
        return first[-1] == 1
    # The weight gradient stays with lax: as products of strided slices it won or lost by a third,
    # with the load of the machine.
    return out == X and geometry.strides != (1, 1)


def _lax(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _by_lax(out: int, geometry: _Geometry, a: Array, b: Array) -> Array:
    """Contract with lax's convolution or one of its two transposes."""
    if out == Y:
        return _lax(a, b, geometry)
    if out == X:
        shape = (b.shape[0], *geometry.size, a.shape[2] * geometry.groups)
        missing = jax.ShapeDtypeStruct(shape, a.dtype)
        return jax.linear_transpose(lambda x: _lax(x, a, geometry), missing)(b)[0]
    shape = (*geometry.window, a.shape[-1] // geometry.groups, b.shape[-1])
    missing = jax.ShapeDtypeStruct(shape, a.dtype)
    return jax.linear_transpose(lambda kernel: _lax(a, kernel, geometry), missing)(b)[0]


def _by_products(out: int, geometry: _Geometry, a: Array, b: Array) -> Array:
    """Contract by a matrix product per kernel tap and group."""
    height, width = geometry.window
    taps = [(i, j) for i in range(height) for j in range(width)]
    if out == Y:
        terms = [_product(out, geometry, _pixels(a, geometry, tap), b[tap]) for tap in taps]
        return functools.reduce(jnp.add, terms).astype(a.dtype)
    if out == KERNEL:
        blocks = [_product(out, geometry, _pixels(a, geometry, tap), b) for tap in taps]
        return jnp.stack(blocks).reshape(height, width, *blocks[0].shape).astype(a.dtype)
    terms = [_spread(_product(out, geometry, a[tap], b), geometry, tap) for tap in taps]
    (top, _), (left, _) = geometry.padding
    total = functools.reduce(jnp.add, terms)
    return total[:, top : top + geometry.size[0], left : left + geometry.size[1]].astype(a.dtype)


def _product(out: int, geometry: _Geometry, a: Array, b: Array) -> Array:
    """Contract at one tap: two of pixels [b, h, w, in], kernel [in / groups, out] and y."""
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
            found = a.astype(wide) * b[0]
        elif out == X:
            found = (b.astype(wide) * a[0]).sum(-1, keepdims=True)
        else:
            found = (a.astype(wide) * b).sum((0, 1, 2))[None]
    else:
        form = {Y: "bhwgi,igo->bhwgo", X: "igo,bhwgo->bhwgi", KERNEL: "bhwgi,bhwgo->igo"}[out]
        found = jnp.einsum(form, a, b, preferred_element_type=wide)
    return found.reshape(*found.shape[:-2], -1)


def _is_depthwise(out: int, groups: int, first: tuple[int, ...]) -> bool:
    """Say whether each group has one input channel; `first` as in `_is_products`."""
    return (first[-2] if out == X else first[-1] // groups) == 1


def _pixels(x: Array, geometry: _Geometry, tap: tuple[int, int]) -> Array:
    """Take the pixels of x that the kernel's tap meets, one for each pixel of y."""
    starts, limits = [0], [x.shape[0]]
    for axis in (0, 1):
        starts.append(tap[axis])
        limits.append(tap[axis] + _reach(geometry, axis))
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    strides = (1, *geometry.strides, 1)
    return lax.slice(x, (*starts, 0), (*limits, x.shape[-1]), strides)


def _spread(pixels: Array, geometry: _Geometry, tap: tuple[int, int]) -> Array:
    """Put back, on zeros of the padded size, what `_pixels` took."""
    pads = [(0, 0, 0)]
    for axis in (0, 1):
        padded = geometry.size[axis] + sum(geometry.padding[axis])
        after = padded - tap[axis] - _reach(geometry, axis)
        pads.append((tap[axis], after, geometry.strides[axis] - 1))
    return lax.pad(pixels, jnp.zeros((), pixels.dtype), (*pads, (0, 0, 0)))


def _reach(geometry: _Geometry, axis: int) -> int:
    """Count the padded pixels from the first to the last that one tap meets."""
    padded = geometry.size[axis] + sum(geometry.padding[axis])
    stride = geometry.strides[axis]
    return (padded - geometry.window[axis]) // stride * stride + 1
