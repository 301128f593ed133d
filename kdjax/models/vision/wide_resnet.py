"""Wide residual networks, after Zagoruyko and Komodakis (arXiv 1605.07146)."""

from typing import Any

import jax
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import Mode, batch_norm, classify, conv_norm
from kdjax.types import Outputs


class Block(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, beside a shortcut."""

    features: int
    stride: int
    mode: Mode

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map [batch, height, width, in] to the sum and to the first batch norm of `x`."""
        strides, dtype = (self.stride, self.stride), self.mode.dtype
        normed = batch_norm(self.mode, "bn1")(x)
        active = nn.relu(normed)
        names = ("conv1", "bn2")
        y = nn.relu(conv_norm(self.features, self.mode, names, stride=self.stride)(active))
        y = Conv(self.features, dtype=dtype, name="conv2")(y)
        if x.shape[-1] == self.features:
            return x + y, normed
        project = Conv(self.features, (1, 1), strides=strides, dtype=dtype, name="shortcut")
        return project(active) + y, normed


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks; see `wide_resnet`."""

    num_classes: int
    depth: int
    widen: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of `wide_resnet`."""
        mode = Mode(train, self.axis_name, self.dtype)
        x = Conv(16, dtype=self.dtype, name="conv1")(x)
        features = {"stem": x}
        for stage in (1, 2, 3):
            width = 16 * self.widen * 2 ** (stage - 1)
            for index in range((self.depth - 4) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                x, normed = Block(width, stride, mode, name=f"block{stage}_{index}")(x)
                if stage > 1 and index == 0:
                    features[f"stage{stage - 1}_pre"] = normed
            features[f"stage{stage}"] = x
        features["stage3_pre"] = batch_norm(mode, "bn1")(x)
        return classify(nn.relu(features["stage3_pre"]), self.num_classes, features)


def wide_resnet(
    *,
    num_classes: int,
    depth: int,
    widen: int,
    dtype: Any = None,
    axis_name: str | None = None,
) -> WideResNet:
    """Make a wide ResNet of depth 6n + 4 with 16, 32 and 64 times `widen` channels.

    Features: "stem" (the first convolution), "stage1", "stage2", "stage3" (sums, without batch
    norm or ReLU), "stage1_pre", ... (the batch norm that follows the stage, before its ReLU),
    "pooled" (the average of that ReLU after stage 3).

    Raises:
      UserError: impossible depth or widening.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UserError(f"wrn: depth is {depth}: use 6n + 4, that is 10, 16, 22, 28, 34, 40, ...")
    if widen < 1:
        raise UserError(f"wrn: widen is {widen}: use a whole number of at least 1")
    return WideResNet(num_classes, depth, widen, dtype, axis_name)
