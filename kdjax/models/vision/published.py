"""Networks as torchvision and timm have them, for images of about 224 pixels, by their names.

VGG with batch norm: Simonyan and Zisserman (arXiv 1409.1556). MobileNetV2: Sandler et al. (arXiv
1801.04381). ResNet-10-T of timm: a ResNet-10 with three convolutions for a stem and averages before
its projections, after He et al. (arXiv 1812.01187). Layers have the names of their PyTorch code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import (
    Mode,
    batch_norm,
    classify,
    conv_norm,
    global_average,
    linear,
    max_pool,
    relu_stages,
)
from kdjax.models.text.attention import Dropout
from kdjax.types import Outputs

# widths of the convolutions of each block by depth
_VGG = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_VGG_GRID = 7  # cells on each side that the last map is averaged to
# expansion, channels, blocks, stride of the first
_MOBILE = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
_MOBILE_STAGES = {1: 1, 2: 2, 4: 3, 6: 4}  # group -> stage that ends with it
_TIERS = (24, 32, 64)  # of a ResNet-T's stem


class VggBn(nn.Module):
    """VGG of torchvision with batch norm: five blocks, then three linear layers with dropout.

    Features: "stem" (the first block, after its pool), "stage1" to "stage4", "pooled" [batch, 4096]
    (the second linear layer after its ReLU).
    """

    num_classes: int
    depth: int
    dropout: float = 0.5
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        if x.ndim == 4 and min(x.shape[1:3]) < 32:
            raise UserError(
                f"vgg{self.depth}_bn cannot take {x.shape[1]}x{x.shape[2]} images: use at least "
                "32x32"
            )
        mode, at, features = Mode(train, self.axis_name, self.dtype), 0, {}
        for stage, (width, count) in enumerate(zip(_VGG_WIDTHS, _VGG[self.depth], strict=True)):
            for _ in range(count):
                conv = Conv(width, use_bias=True, dtype=self.dtype, name=f"features_{at}")
                x = nn.relu(batch_norm(mode, f"features_{at + 1}")(conv(x)))
                at += 3
            x, at = nn.max_pool(x, (2, 2), (2, 2)), at + 1
            features[f"stage{stage}" if stage else "stem"] = x
        # flat in PyTorch's order: channels first
        x = adaptive_average(x, _VGG_GRID).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        dropout = Dropout(self.dropout)
        for name in ("classifier_0", "classifier_3"):
            x = nn.relu(linear(4096, name=name, dtype=self.dtype)(x))
            features["pooled"] = x.astype(jnp.float32)
            x = dropout(x, train)
        return Outputs(linear(self.num_classes, name="fc")(x.astype(jnp.float32)), features)


def adaptive_average(x: jax.Array, side: int) -> jax.Array:
    """Average [batch, height, width, channel] over side x side cells, as PyTorch's adaptive pool.

    Cell i covers floor(i n / side) to ceil((i + 1) n / side) - 1; cells may share pixels.
    """

    def weights(size: int) -> np.ndarray:
        cells, pixels = np.arange(side)[:, None], np.arange(size)[None]
        first, end = cells * size // side, -(-(cells + 1) * size // side)
        inside = (pixels >= first) & (pixels < end)
        return (inside / inside.sum(1, keepdims=True)).astype(np.float32)

    rows, columns = weights(x.shape[1]), weights(x.shape[2])
    return jnp.einsum("bhwc,yh,xw->byxc", x, rows, columns).astype(x.dtype)


class MobileNetV2Imagenet(nn.Module):
    """MobileNetV2 of torchvision and timm: ReLU6, no expansion in the first block, dropout.

    Features: "stem", "stage1" to "stage4" (after the groups of blocks 1, 2, 4 and 6, counted from
    0), "pooled" [batch, 1280].
    """

    num_classes: int
    dropout: float = 0.2
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = nn.relu6(conv_norm(32, mode, ("features_0_0", "features_0_1"), stride=2)(x))
        features, at = {"stem": x}, 1
        for group, (expansion, width, count, first) in enumerate(_MOBILE):
            for index in range(count):
                stride = first if index == 0 else 1
                x = _Inverted(width, expansion, stride, mode, name=f"features_{at}")(x)
                at += 1
            if stage := _MOBILE_STAGES.get(group):
                features[f"stage{stage}"] = x
        names = (f"features_{at}_0", f"features_{at}_1")
        x = nn.relu6(conv_norm(1280, mode, names, kernel=1)(x))
        features["pooled"] = pooled = global_average(x)
        return Outputs(
            linear(self.num_classes, name="fc")(Dropout(self.dropout)(pooled, train)), features
        )


class _Inverted(nn.Module):
    """Expand by 1x1 if at all, filter each channel, project; a sum if shapes allow."""

    features: int
    expansion: int
    stride: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, wide, at = x, x.shape[-1] * self.expansion, 0
        if self.expansion > 1:
            y = nn.relu6(conv_norm(wide, self.mode, ("conv_0_0", "conv_0_1"), kernel=1)(y))
            at = 1
        names = (f"conv_{at}_0", f"conv_{at}_1")
        y = nn.relu6(conv_norm(wide, self.mode, names, stride=self.stride, groups=wide)(y))
        names = (f"conv_{at + 1}", f"conv_{at + 2}")
        y = conv_norm(self.features, self.mode, names, kernel=1)(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class ResNet10T(nn.Module):
    """ResNet-10-T of timm.

    Features: "stem" (after its max-pool), "stage1" to "stage4" (each after its last ReLU),
    "stage1_pre", ... (before that ReLU), "pooled" [batch, 512].
    """

    num_classes: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of the class."""
        mode = Mode(train, self.axis_name, self.dtype)
        for at, width in zip((0, 3, 6), _TIERS, strict=True):
            last = at == 6
            names = (f"conv1_{at}", "bn1" if last else f"conv1_{at + 1}")
            x = nn.relu(conv_norm(width, mode, names, stride=1 if at else 2)(x))

        def block(stage: int, index: int) -> _Averaging:
            width, stride = 64 * 2 ** (stage - 1), 1 if stage == 1 else 2
            return _Averaging(width, stride, mode, name=f"layer{stage}_{index}")

        features = relu_stages(max_pool(x), (1, 1, 1, 1), block)
        return classify(features["stage4"], self.num_classes, features)


class _Averaging(nn.Module):
    """Two 3x3 convolutions beside a shortcut that averages before it projects."""

    width: int
    stride: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(conv_norm(self.width, self.mode, ("conv1", "bn1"), stride=self.stride)(x))
        y = conv_norm(self.width, self.mode, ("conv2", "bn2"))(y)
        if self.stride == 1 and x.shape == y.shape:
            return x + y
        border: Any = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
        x = nn.avg_pool(x, (2, 2), (2, 2), border, count_include_pad=False)
        names = ("downsample_1", "downsample_2")
        return y + conv_norm(self.width, self.mode, names, kernel=1)(x)
