"""The small layers that the image networks share: batch norm, pooling and the last linear map."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from kdjax.models.layers.conv import Conv
from kdjax.types import UserError

__all__ = [
    "Mode",
    "batch_norm",
    "compute_dtype",
    "conv_norm",
    "global_average",
    "halve",
    "layer_widths",
    "linear",
    "max_pool",
    "smallest_image",
]


class Mode(NamedTuple):
    """What all layers of a network are told alike."""

    train: bool
    axis_name: str | None
    dtype: Any


def batch_norm(*, train: bool, axis_name: str | None, dtype: Any, name: str) -> nn.BatchNorm:
    """Make a batch norm with PyTorch's epsilon 1e-5 and momentum .1 (.9 as Flax counts it).

    Mean and variance are taken in float32. With `axis_name` they are those of the batches of all
    devices together. The running variance follows the biased batch variance, as always in Flax;
    PyTorch multiplies it by n / (n - 1), n = batch * height * width.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=axis_name,
        name=name,
    )


def conv_norm(
    x: jax.Array,
    features: int,
    mode: Mode,
    names: tuple[str, str],
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    use_bias: bool = False,
) -> jax.Array:
    """Convolve and normalise, inside a compact method; `names` are those of the two layers."""
    conv = Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        groups=groups,
        use_bias=use_bias,
        dtype=mode.dtype,
        name=names[0],
    )
    norm = batch_norm(train=mode.train, axis_name=mode.axis_name, dtype=mode.dtype, name=names[1])
    return norm(conv(x))


def linear(features: int, *, name: str, dtype: Any = jnp.float32) -> nn.Dense:
    """Make a linear layer with weights uniform within 1 / sqrt(fan_in) and zero bias."""
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(features, kernel_init=init, dtype=dtype, name=name)


def global_average(x: jax.Array) -> jax.Array:
    """Average [batch, height, width, channel] over the image to [batch, channel] float32."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def halve(x: jax.Array) -> jax.Array:
    """Take the maximum of each 2x2 window of [batch, height, width, channel]; odd edges drop."""
    batch, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum of each 3x3 window, stride 2, one pixel of border: a ResNet's stem.

    On the CPU the maximum of strided slices: the gradient of lax's windowed maximum carries four
    indices through each window there. Equal maxima of a window then share its gradient, of which
    elsewhere the first gets all; after a ReLU those are zeros, which pass none on.
    """
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    if jax.default_backend() != "cpu":
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), border)
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    for axis in (1, 2):
        end = (x.shape[axis] - 3) // 2 * 2 + 1  # one after the first pixel of the last window
        parts = [lax.slice_in_dim(x, i, i + end, 2, axis) for i in range(3)]
        x = functools.reduce(jnp.maximum, parts)
    return x


def smallest_image(name: str, x: jax.Array, pixels: int) -> None:
    """Refuse images that a network would halve to nothing."""
    if x.ndim == 4 and min(x.shape[1:3]) < pixels:
        size = f"{x.shape[1]}x{x.shape[2]}"
        raise UserError(f"{name} cannot take {size} images: use at least {pixels}x{pixels}")


def compute_dtype(dtype: Any) -> Any:
    """Return the floating type that a config names ("bfloat16", None, ...).

    Raises:
      UserError: it is no floating type.
    """
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise UserError(f'dtype is {dtype!r}: use "float32", "bfloat16" or None')
    return found


def layer_widths(name: str, widths: Any) -> tuple[int, ...]:
    """Return a config's list of layer widths as a tuple.

    Raises:
      UserError: it is no list of whole numbers of at least 1; `name` says which option.
    """
    found = tuple(widths) if isinstance(widths, Sequence) else None
    if found is None or any(not isinstance(width, int) or width < 1 for width in found):
        raise UserError(f"{name} is {widths!r}: use a list of whole numbers of at least 1")
    return found
