"""Residual networks of four stages, 10 to 101 layers, after He et al. (arXiv 1512.03385).

The strided convolution of a bottleneck is the 3x3 one, as in the usual PyTorch weights ("v1.5").
"""

from typing import Any

import jax
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.layers import (
    Mode,
    classify,
    compute_dtype,
    conv_norm,
    global_average,
    max_pool,
)
from kdjax.types import Outputs

# Depth -> blocks in each stage, and whether they are bottlenecks.
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
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to the sum, before its ReLU."""
        mode, width, stride = self.mode, self.width, self.stride
        if self.bottleneck:
            out = 4 * width
            y = nn.relu(conv_norm(width, mode, ("conv1", "bn1"), kernel=1)(x))
            y = nn.relu(conv_norm(width, mode, ("conv2", "bn2"), stride=stride)(y))
            y = conv_norm(out, mode, ("conv3", "bn3"), kernel=1)(y)
        else:
            out = width
            y = nn.relu(conv_norm(width, mode, ("conv1", "bn1"), stride=stride)(x))
            y = conv_norm(width, mode, ("conv2", "bn2"))(y)
        if x.shape == y.shape:
            return x + y
        names = ("shortcut_conv", "shortcut_bn")
        return conv_norm(out, mode, names, kernel=1, stride=stride)(x) + y


class ResNetImagenet(nn.Module):
    """A stem and four stages of 64 to 512 channels; see `resnet_imagenet`.

    Without classes it has no last layer: the backbone of a detector.
    """

    num_classes: int
    depth: int
    stem: str
    width: int = 64
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and features of `resnet_imagenet`."""
        mode = Mode(train, self.axis_name, self.dtype)
        if self.stem == "imagenet":
            x = nn.relu(conv_norm(self.width, mode, ("conv1", "bn1"), kernel=7, stride=2)(x))
            x = max_pool(x)
        else:
            x = nn.relu(conv_norm(self.width, mode, ("conv1", "bn1"))(x))
        features = {"stem": x}
        counts, bottleneck = _BLOCKS[self.depth]
        for stage, count in enumerate(counts, start=1):
            before = x
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"layer{stage}_{index}"
                block = Block(self.width * 2 ** (stage - 1), stride, bottleneck, mode, name=name)
                before = block(x)
                x = nn.relu(before)
            features |= {f"stage{stage}_pre": before, f"stage{stage}": x}
        if not self.num_classes:
            return Outputs(global_average(x), features)
        return classify(x, self.num_classes, features)


def resnet_imagenet(
    *,
    num_classes: int,
    depth: int,
    stem: str = "cifar",
    width: int = 64,
    dtype: Any = None,
    axis_name: str | None = None,
) -> ResNetImagenet:
    """Make a ResNet-10, -18, -34, -50 or -101.

    Features: "stem" (with its max-pool, if it has one), "stage1" to "stage4" (each after its last
    ReLU), "stage1_pre", ... (before that ReLU), "pooled" [batch, 512] or, from depth 50 on,
    [batch, 2048].

    Args:
      num_classes: width of the logits.
      depth: 10, 18, 34, 50 or 101.
      stem: "cifar", a 3x3 convolution, for images of about 32 pixels, or "imagenet", a 7x7 one of
        stride 2 and a 3x3 max-pool of stride 2, for about 224.
      width: channels of the stem and the first stage, which each further stage doubles.
      dtype: of the computation.
      axis_name: pmap axis over which batch norm is taken.

    Raises:
      UserError: another depth or stem, or no width.
    """
    if depth not in _BLOCKS:
        raise UserError(f"ResNet: depth is {depth}: use one of {', '.join(map(str, _BLOCKS))}")
    if stem not in ("cifar", "imagenet"):
        raise UserError(f'ResNet{depth}: stem is {stem!r}: use "cifar" or "imagenet"')
    if width < 1:
        raise UserError(f"ResNet{depth}: width is {width}: use at least 1")
    return ResNetImagenet(num_classes, depth, stem, width, compute_dtype(dtype), axis_name)
