"""MobileNets: V1 (arXiv 1704.04861) and V2 (arXiv 1801.04381), with depthwise convolutions."""

from typing import Any

import jax
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.layers import Mode, classify, conv_norm
from kdjax.types import Outputs

# V1, one row per block: output channels, stride. V2, one row per group of blocks: expansion, output
# channels at width 1, blocks, stride of the first; stride 1 in the second group, for small images.
_V1 = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2),
    (1024, 1),
)  # fmt: skip
_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
# The last block of each stage: where the next one halves the image.
V1_STAGES = {3: 1, 5: 2, 11: 3, 13: 4}
V2_STAGES = {1: 1, 2: 2, 4: 3, 6: 4}


class MobileNetV1(nn.Module):
    """MobileNetV1 at full width, for images of about 224 pixels (any size runs).

    Features: "stem", "stage1" to "stage4" (after the last ReLU before the 2nd, 3rd and 4th
    halving and at the end), "stage1_pre", ... (before that ReLU), "pooled" [batch, 1024].
    """

    num_classes: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = nn.relu(conv_norm(32, mode, ("model_0_0", "model_0_1"), stride=2)(x))
        features = {"stem": x}
        for block, (width, stride) in enumerate(_V1, start=1):
            first, channels = f"model_{block}", x.shape[-1]
            names = (f"{first}_0", f"{first}_1")
            x = nn.relu(conv_norm(channels, mode, names, stride=stride, groups=channels)(x))
            before = conv_norm(width, mode, (f"{first}_3", f"{first}_4"), kernel=1)(x)
            x = nn.relu(before)
            if stage := V1_STAGES.get(block):
                features |= {f"stage{stage}_pre": before, f"stage{stage}": x}
        return classify(x, self.num_classes, features)


class Inverted(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1 without ReLU; a sum if shapes allow."""

    features: int
    expansion: int
    stride: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, in] to [batch, height', width', features]."""
        wide = x.shape[-1] * self.expansion
        y = nn.relu(conv_norm(wide, self.mode, ("conv_0", "conv_1"), kernel=1)(x))
        names = ("conv_3", "conv_4")
        y = nn.relu(conv_norm(wide, self.mode, names, stride=self.stride, groups=wide)(y))
        y = conv_norm(self.features, self.mode, ("conv_6", "conv_7"), kernel=1)(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """A 3x3 convolution of stride 2, inverted residuals, a 1x1 one; see `mobilenet_v2`.

    Without classes it ends with its last block: the backbone of a detector.
    """

    num_classes: int
    width: float
    stem: str = "cifar"
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of `mobilenet_v2`."""
        mode = Mode(train, self.axis_name, self.dtype)
        stem = int(32 * self.width)
        x = nn.relu(conv_norm(stem, mode, ("conv1_0", "conv1_1"), stride=2)(x))
        features = {"stem": x}
        for group, (expansion, channels, count, small) in enumerate(_V2):
            stride = 2 if self.stem == "imagenet" and group == 1 else small
            for index in range(count):
                width, step = int(channels * self.width), stride if index == 0 else 1
                x = Inverted(width, expansion, step, mode, name=f"blocks_{group}_{index}")(x)
            if stage := V2_STAGES.get(group):
                features[f"stage{stage}"] = x
        if self.num_classes:
            last = max(1280, int(1280 * self.width))
            x = nn.relu(conv_norm(last, mode, ("conv2_0", "conv2_1"), kernel=1)(x))
        return classify(x, self.num_classes, features)


def mobilenet_v2(
    *,
    num_classes: int,
    width: float = 0.5,
    stem: str = "cifar",
    dtype: Any = None,
    axis_name: str | None = None,
) -> MobileNetV2:
    """Make MobileNetV2 with ReLU, not ReLU6, by default for small images.

    Features: "stem", "stage1" to "stage4" (after the groups of blocks 1, 2, 4 and 6, counted from
    0; they end without a ReLU), "pooled" [batch, 1280].

    `width` is a factor on all channels; the last 1280 are only raised, never lowered. The stem
    "cifar" is for images of about 32 pixels, which are halved four times. With "imagenet", for
    about 224 pixels, the second group also halves them, as published.

    Raises:
      UserError: a width that leaves a layer without channels, or another stem.
    """
    if not width >= 1 / 16:
        raise UserError(f"MobileNetV2: width is {width}: use at least 0.0625")
    if stem not in ("cifar", "imagenet"):
        raise UserError(f'MobileNetV2: stem is {stem!r}: use "cifar" or "imagenet"')
    return MobileNetV2(num_classes, width, stem, dtype, axis_name)
