"""The small layers that the image networks share: batch norm, pooling and the last linear map."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from kdjax.errors import UserError
from kdjax.models.layers.conv import Conv
from kdjax.types import Outputs


class Mode(NamedTuple):
    """Settings that all layers of a network share."""

    train: bool
    axis_name: str | None
    dtype: Any


def batch_norm(mode: Mode, name: str) -> nn.BatchNorm:
    """Make a batch norm with PyTorch's epsilon 1e-5 and momentum 0.1 (0.9 in Flax's convention).

    Mean and variance are computed in float32. With an `axis_name` they are those of the batches
    of all devices together. As in Flax, the running variance averages biased batch variances;
    PyTorch multiplies these by n / (n - 1), n = batch * height * width.
    """
    return nn.BatchNorm(
        use_running_average=not mode.train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=mode.dtype,
        axis_name=mode.axis_name,
        name=name,
    )


def conv_norm(
    features: int,
    mode: Mode,
    names: tuple[str, str],
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
) -> Callable[[jax.Array], jax.Array]:
    """Make a convolution and a batch norm with these `names`, inside a compact method."""
    window, strides = (kernel, kernel), (stride, stride)
    conv = Conv(features, window, strides, groups=groups, dtype=mode.dtype, name=names[0])
    norm = batch_norm(mode, names[1])
    return lambda x: norm(conv(x))


def linear(features: int, *, name: str, dtype: Any = jnp.float32) -> nn.Dense:
    """Make a linear layer with weights uniform within 1 / sqrt(fan_in) and zero bias."""
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(features, kernel_init=init, dtype=dtype, name=name)


def relu_stages(
    x: jax.Array, counts: Sequence[int], block: Callable[[int, int], Callable[..., jax.Array]]
) -> dict[str, jax.Array]:
    """Apply stages of blocks, each followed by a ReLU, inside a compact method.

    Args:
      x: [batch, height, width, channel].
      counts: blocks of each stage.
      block: makes block `index`, from 0, of `stage`, from 1.

    Returns:
      Features "stem" (x), "stage1", ... (after the last ReLU) and "stage1_pre", ... (before it).
    """
    features = {"stem": x}
    for stage, count in enumerate(counts, start=1):
        before = x
        for index in range(count):
            before = block(stage, index)(x)
            x = nn.relu(before)
        features |= {f"stage{stage}_pre": before, f"stage{stage}": x}
    return features


def global_average(x: jax.Array) -> jax.Array:
    """Average [batch, height, width, channel] over the image to [batch, channel] float32."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def classify(x: jax.Array, num_classes: int, features: Mapping[str, jax.Array]) -> Outputs:
    """Average a map, "last_map", to the feature "pooled", and apply the linear layer "fc" to it.

    If `num_classes` is 0, as in the backbone of a detector, the logits are the average.
    """
    pooled = global_average(x)
    if not num_classes:
        return Outputs(pooled, features)
    logits = linear(num_classes, name="fc")(pooled)
    return Outputs(logits, {**features, "last_map": x, "pooled": pooled})


def halve(x: jax.Array) -> jax.Array:
    """Take the maximum of each 2x2 window of [batch, height, width, channel]; drop odd edges."""
    batch, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum of 3x3 windows with stride 2 and padding 1, as in a ResNet's stem.

    The CPU takes the maximum of strided slices, because the gradient of lax's windowed maximum is
    slow there. Equal maxima of a window then share its gradient; on other devices the first gets
    all of it. After a ReLU equal maxima are zeros, whose gradient is 0.
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


def compute_dtype(dtype: Any) -> Any:
    """Return the floating type that a config names ("bfloat16", None, ...).

    Raises:
      UserError: it is not a floating type.
    """
    if dtype is None:
        return None
    try:
        parsed = jnp.dtype(dtype)
    except TypeError:
        parsed = None
    if parsed is None or not jnp.issubdtype(parsed, jnp.floating):
        raise UserError(f'dtype is {dtype!r}: use "float32", "bfloat16" or None')
    return parsed


def layer_widths(name: str, widths: Any) -> tuple[int, ...]:
    """Return a config's list of layer widths as a tuple.

    Raises:
      UserError: it is not a list of integers >= 1; names the option, `name`.
    """
    if not isinstance(widths, Sequence) or any(not isinstance(w, int) or w < 1 for w in widths):
        raise UserError(f"{name} is {widths!r}: use a list of whole numbers of at least 1")
    return tuple(widths)
