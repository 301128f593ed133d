"""ShuffleNets for small images: V1 (arXiv 1707.01083) and V2 (arXiv 1807.11164)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from kdjax.models.layers.layers import Mode, classify, conv_norm, relu_stages
from kdjax.types import Outputs

# One row per stage: channels, blocks (the first of which halves the image).
_V1 = ((240, 4), (480, 8), (960, 4))
_V2 = ((116, 4), (232, 8), (464, 4))
_STEM = 24
_GROUPS = 3  # of V1


class GroupedBlock(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; stride 2 concatenates the pooled input."""

    features: int
    stride: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to the sum or the concatenation, before its ReLU."""
        new_channels = self.features - (x.shape[-1] if self.stride == 2 else 0)
        middle = new_channels // 4
        # The few channels of the stem are not divided.
        groups = 1 if x.shape[-1] == _STEM else _GROUPS
        y = conv_norm(middle, self.mode, ("conv1", "bn1"), kernel=1, groups=groups)(x)
        y = shuffle(nn.relu(y), groups)
        names = ("conv2", "bn2")
        y = conv_norm(middle, self.mode, names, stride=self.stride, groups=middle)(y)
        names = ("conv3", "bn3")
        y = conv_norm(new_channels, self.mode, names, kernel=1, groups=_GROUPS)(nn.relu(y))
        if self.stride == 1:
            return x + y
        # The zeros around the image count in the average, as in PyTorch.
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        mean = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), pads) / 9
        return jnp.concatenate([y, mean.astype(y.dtype)], axis=-1)


class ShuffleV1(nn.Module):
    """ShuffleNetV1 with three groups; ReLU follows the depthwise convolutions too.

    Features: "stem", "stage1", "stage2", "stage3" (each after its last ReLU), "stage1_pre", ...
    (before that ReLU), "pooled" [batch, 960].
    """

    num_classes: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = nn.relu(conv_norm(_STEM, mode, ("conv1", "bn1"), kernel=1)(x))

        def block(stage: int, index: int) -> GroupedBlock:
            width, name = _V1[stage - 1][0], f"layer{stage}_{index}"
            return GroupedBlock(width, 1 if index else 2, mode, name=name)

        features = relu_stages(x, [count for _, count in _V1], block)
        return classify(features["stage3"], self.num_classes, features)


class DownBlock(nn.Module):
    """Two branches of stride 2 on all channels, joined and shuffled."""

    features: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to [batch, height / 2, width / 2, features]."""
        mode, half, channels = self.mode, self.features // 2, x.shape[-1]
        y = conv_norm(channels, mode, ("conv1", "bn1"), stride=2, groups=channels)(x)
        left = nn.relu(conv_norm(half, mode, ("conv2", "bn2"), kernel=1)(y))
        y = nn.relu(conv_norm(half, mode, ("conv3", "bn3"), kernel=1)(x))
        y = conv_norm(half, mode, ("conv4", "bn4"), stride=2, groups=half)(y)
        right = nn.relu(conv_norm(half, mode, ("conv5", "bn5"), kernel=1)(y))
        return shuffle(jnp.concatenate([left, right], axis=-1), 2)


class SplitBlock(nn.Module):
    """Bottleneck on one half of the channels, identity on the other; then a shuffle."""

    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to the same shape, before the last ReLU."""
        mode, half = self.mode, x.shape[-1] // 2
        passed, y = x[..., :half], x[..., half:]
        y = nn.relu(conv_norm(half, mode, ("conv1", "bn1"), kernel=1)(y))
        y = conv_norm(half, mode, ("conv2", "bn2"), groups=half)(y)
        y = conv_norm(half, mode, ("conv3", "bn3"), kernel=1)(y)
        return shuffle(jnp.concatenate([passed.astype(y.dtype), y], axis=-1), 2)


class ShuffleV2(nn.Module):
    """ShuffleNetV2 at its published width 1.

    Features: "stem", "stage1", "stage2", "stage3" (each after its last shuffle), "stage1_pre",
    ... (the same before the last ReLU, in the same order of channels), "pooled" [batch, 1024].
    """

    num_classes: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = nn.relu(conv_norm(_STEM, mode, ("conv1", "bn1"), kernel=1)(x))

        def block(stage: int, index: int) -> nn.Module:
            name = f"layer{stage}_{index}"
            return (
                SplitBlock(mode, name=name)
                if index
                else DownBlock(_V2[stage - 1][0], mode, name=name)
            )

        # The ReLU after a block does not change channels that are already outputs of a ReLU.
        features = relu_stages(x, [count for _, count in _V2], block)
        x = nn.relu(conv_norm(1024, mode, ("conv2", "bn2"), kernel=1)(features["stage3"]))
        return classify(x, self.num_classes, features)


def shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Interleave the channels of the groups: the first of each group, then the second, ..."""
    shuffled = x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2)
    return shuffled.reshape(x.shape)
