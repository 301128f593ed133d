"""Residual networks for small images, after He et al. (arXiv 1512.03385, section 4.2)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.layers import Mode, classify, compute_dtype, conv_norm, layer_widths
from kdjax.types import Outputs


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; ReLU comes after the sum."""

    features: int
    stride: int
    shortcut: str
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to the sum, before its ReLU."""
        mode, width, stride = self.mode, self.features, self.stride
        y = nn.relu(conv_norm(width, mode, ("conv1", "bn1"), stride=stride)(x))
        y = conv_norm(width, mode, ("conv2", "bn2"))(y)
        if stride == 1 and x.shape[-1] == width:
            return x + y
        if self.shortcut == "pad":
            return y + pad_shortcut(x, width, stride).astype(y.dtype)
        names = ("shortcut_conv", "shortcut_bn")
        return y + conv_norm(width, mode, names, kernel=1, stride=stride)(x)


class ResNet(nn.Module):
    """Three stages of residual blocks; see `resnet`."""

    num_classes: int
    depth: int
    widths: tuple[int, int, int, int]
    shortcut: str
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features listed in `resnet`."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = nn.relu(conv_norm(self.widths[0], mode, ("conv1", "bn1"))(x))
        features = {"stem": x}
        for stage, width in enumerate(self.widths[1:], start=1):
            for index in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"layer{stage}_{index}"
                before = Block(width, stride, self.shortcut, mode, name=name)(x)
                x = nn.relu(before)
                features |= {f"stage{stage}_pre": before, f"stage{stage}": x}
        return classify(x, self.num_classes, features)


def pad_shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Take every `stride`-th pixel and put zero channels before and after, up to `features`."""
    before = (features - x.shape[-1]) // 2
    after = features - x.shape[-1] - before
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (before, after)))


def resnet(
    *,
    num_classes: int,
    depth: int,
    widths: Sequence[int] = (16, 16, 32, 64),
    shortcut: str = "conv",
    dtype: Any = None,
    axis_name: str | None = None,
) -> ResNet:
    """Make a CIFAR ResNet of depth 6n + 2.

    Features: "stem", "stage1", "stage2", "stage3" (each after its last ReLU), "stage1_pre", ...
    (the same before that ReLU), "pooled" [batch, widths[3]].

    Args:
      num_classes: width of the logits.
      depth: 6n + 2.
      widths: channels of the stem and of the three stages.
      shortcut: where the shape changes: "conv", a 1x1 convolution with batch norm, or "pad",
        every second pixel with zero channels on both sides (option A of the paper).
      dtype: of the computation.
      axis_name: pmap axis over which batch norm is taken.

    Raises:
      UserError: impossible depth, widths or shortcut.
    """
    channels = layer_widths("resnet: widths", widths)
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"resnet: depth is {depth}: use 6n + 2, that is 8, 14, 20, ...")
    if len(channels) != 4:
        raise UserError(f"resnet: widths is {channels}: give four, of the stem and of three stages")
    if shortcut not in ("conv", "pad"):
        raise UserError(f'resnet: shortcut is {shortcut!r}: use "conv" or "pad"')
    if shortcut == "pad" and list(channels) != sorted(channels):
        raise UserError(f'resnet: widths {channels} shrink: shortcut "pad" can only add channels')
    return ResNet(num_classes, depth, channels, shortcut, compute_dtype(dtype), axis_name)
