"""Residual networks, after He et al. (arXiv 1512.03385).

`resnet` makes those for small images (section 4.2), `resnet_imagenet` those of four stages. The
strided convolution of a bottleneck is the 3x3 one, as in the usual PyTorch weights ("v1.5").
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.layers import (
    Mode,
    classify,
    conv_norm,
    layer_widths,
    max_pool,
    relu_stages,
)
from kdjax.types import Outputs

# Depth of a `resnet_imagenet` -> blocks in each stage, and whether they are bottlenecks.
_BLOCKS = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to fourfold width, beside a shortcut."""

    width: int
    stride: int
    bottleneck: bool
    shortcut: str
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to the sum, before its ReLU."""
        mode, width, stride = self.mode, self.width, self.stride
        if self.bottleneck:
            y = nn.relu(conv_norm(width, mode, ("conv1", "bn1"), kernel=1)(x))
            y = nn.relu(conv_norm(width, mode, ("conv2", "bn2"), stride=stride)(y))
            y = conv_norm(4 * width, mode, ("conv3", "bn3"), kernel=1)(y)
        else:
            y = nn.relu(conv_norm(width, mode, ("conv1", "bn1"), stride=stride)(x))
            y = conv_norm(width, mode, ("conv2", "bn2"))(y)
        out = y.shape[-1]
        if stride == 1 and x.shape[-1] == out:
            return x + y
        if self.shortcut == "pad":
            return y + pad_shortcut(x, out, stride).astype(y.dtype)
        names = ("shortcut_conv", "shortcut_bn")
        return y + conv_norm(out, mode, names, kernel=1, stride=stride)(x)


class ResNet(nn.Module):
    """A stem and stages of residual blocks; see `resnet` and `resnet_imagenet`.

    Without classes it has no last layer: the backbone of a detector.
    """

    num_classes: int
    counts: tuple[int, ...]  # blocks of each stage
    widths: tuple[int, ...]  # of the stem and of each stage
    bottleneck: bool = False
    shortcut: str = "conv"
    stem: str = "cifar"
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of `resnet`."""
        mode = Mode(train, self.axis_name, self.dtype)
        window = {"kernel": 7, "stride": 2} if self.stem == "imagenet" else {}
        x = nn.relu(conv_norm(self.widths[0], mode, ("conv1", "bn1"), **window)(x))
        x = max_pool(x) if self.stem == "imagenet" else x

        def block(stage: int, index: int) -> Block:
            stride, name = 2 if stage > 1 and index == 0 else 1, f"layer{stage}_{index}"
            width = self.widths[stage]
            return Block(width, stride, self.bottleneck, self.shortcut, mode, name=name)

        features = relu_stages(x, self.counts, block)
        return classify(features[f"stage{len(self.counts)}"], self.num_classes, features)


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
    """Make a CIFAR ResNet of depth 6n + 2; `widths` are those of the stem and the three stages.

    Features: "stem", "stage1", "stage2", "stage3" (each after its last ReLU), "stage1_pre", ...
    (the same before that ReLU), "pooled" [batch, widths[3]].

    The shortcut, where the shape changes, is "conv", a 1x1 convolution with batch norm, or "pad",
    every second pixel with zero channels on both sides (option A of the paper).

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
    counts = ((depth - 2) // 6,) * 3
    return ResNet(
        num_classes, counts, channels, shortcut=shortcut, dtype=dtype, axis_name=axis_name
    )


def resnet_imagenet(
    *,
    num_classes: int,
    depth: int,
    stem: str = "cifar",
    width: int = 64,
    dtype: Any = None,
    axis_name: str | None = None,
) -> ResNet:
    """Make a ResNet-10, -18, -34, -50 or -101.

    Features: "stem" (with its max-pool, if it has one), "stage1" to "stage4" (each after its last
    ReLU), "stage1_pre", ... (before that ReLU), "pooled" [batch, 512] or, from depth 50 on,
    [batch, 2048].

    The stem is "cifar", a 3x3 convolution, for images of about 32 pixels, or "imagenet", a 7x7 one
    of stride 2 and a 3x3 max-pool of stride 2, for about 224. `width` is that of the stem and the
    first stage; each further stage doubles it.

    Raises:
      UserError: another depth or stem, or no width.
    """
    if depth not in _BLOCKS:
        raise UserError(f"ResNet: depth is {depth}: use one of {', '.join(map(str, _BLOCKS))}")
    if stem not in ("cifar", "imagenet"):
        raise UserError(f'ResNet{depth}: stem is {stem!r}: use "cifar" or "imagenet"')
    if width < 1:
        raise UserError(f"ResNet{depth}: width is {width}: use at least 1")
    counts, bottleneck = _BLOCKS[depth]
    widths = (width, *(width * 2**stage for stage in range(4)))
    return ResNet(
        num_classes, counts, widths, bottleneck, stem=stem, dtype=dtype, axis_name=axis_name
    )
