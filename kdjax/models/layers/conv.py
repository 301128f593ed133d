"""The convolution of all networks, with custom gradients and a batching rule on the CPU.

A convolution is one trilinear form T(x, kernel, y) = <conv(x, kernel), y>. Its derivative in y is
the convolution, in x the input gradient, and in the kernel the weight gradient. The derivatives of
each of these three contractions are the other two, so one rule gives derivatives of any order
(reverse mode; `jax.jvp` does not work on the CPU).

lax alone is slow on the CPU for two reasons: `vmap` over kernels (a sweep) makes a grouped
convolution, whose weight gradient is up to 80 times slower than one member after another; and some
contractions are faster in other forms (`kdjax.models.layers.conv_kernels`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from kdjax.errors import UserError
from kdjax.models.layers import conv_kernels
from kdjax.models.layers.conv_kernels import KERNEL, Geometry, Padding, X, Y

Array = jax.Array


class Conv(nn.Module):
    """A convolution with PyTorch's padding: k // 2 zeros on each side for any stride.

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


def conv2d(
    x: Array, kernel: Array, *, strides: tuple[int, int], padding: Padding, groups: int = 1
) -> Array:
    """Convolve images with a kernel (a cross-correlation).

    On the CPU `vmap` over the kernel compiles one contraction for each member, so compilation time
    grows with their number; elsewhere it is lax's grouped convolution.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel_height, kernel_width, in / groups, out], of the type of `x`.
      strides: vertical and horizontal step.
      padding: zeros before and after, vertically and horizontally.
      groups: number of independent groups of channels.

    Returns:
      [batch, height', width', out], in the type of `x`.

    >>> x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    >>> conv2d(x, kernel, strides=(2, 2), padding=((1, 1), (1, 1))).shape
    (2, 4, 4, 5)
    """
    size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    geometry = Geometry(size, window, strides, padding, groups)
    if jax.default_backend() != "cpu":
        return conv_kernels.convolve(x, kernel, geometry)
    return _contraction(Y, geometry)(x, kernel)


@functools.cache
def _contraction(out: int, geometry: Geometry) -> Callable[[Array, Array], Array]:
    """Make the function that computes slot `out` from the other two, in ascending order."""
    first, second = (slot for slot in (X, KERNEL, Y) if slot != out)

    @jax.custom_batching.custom_vmap
    def single(a: Array, b: Array) -> Array:
        return conv_kernels.contract(out, geometry, a, b)

    @single.def_vmap
    def rule(members: int, batched: list[bool], a: Array, b: Array) -> tuple[Array, bool]:
        if conv_kernels.is_products(out, geometry, a.shape[batched[0] :]):
            axes = tuple(0 if is_batched else None for is_batched in batched)
            form = functools.partial(conv_kernels.contract, out, geometry)
            return jax.vmap(form, in_axes=axes)(a, b), True
        if out != KERNEL and not batched[(first, second).index(KERNEL)]:
            return _fold_members(contract, out, a, b), True
        results = [
            contract(*(x[i] if mapped else x for x, mapped in zip((a, b), batched, strict=True)))
            for i in range(members)
        ]
        return jnp.stack(results), True

    contract = jax.custom_vjp(single)

    def forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
        # `contract` and not `single`, for second derivatives
        return contract(a, b), (a, b)

    def backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
        slots = {first: saved[0], second: saved[1], out: cotangent}
        return _solve(first, geometry, slots), _solve(second, geometry, slots)

    contract.defvjp(forward, backward)
    return contract


def _solve(slot: int, geometry: Geometry, slots: dict[int, Array]) -> Array:
    operands = [slots[other] for other in (X, KERNEL, Y) if other != slot]
    return _contraction(slot, geometry)(*operands)


def _fold_members(contract: Callable[..., Array], out: int, a: Array, b: Array) -> Array:
    """Apply one kernel to all members as one larger batch."""
    images, kernel = (a, b) if out == Y else (b, a)
    folded = images.reshape(-1, *images.shape[2:])
    result = contract(folded, kernel) if out == Y else contract(kernel, folded)
    return result.reshape(*images.shape[:2], *result.shape[1:])
