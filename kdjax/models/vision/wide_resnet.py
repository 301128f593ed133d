"""Wide residual networks, after Zagoruyko and Komodakis (arXiv 1605.07146)."""

from typing import Any

import jax
from flax import linen as nn

from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import batch_norm, compute_dtype, global_average, linear
from kdjax.types import Outputs, UserError

__all__ = ["WideResNet", "wide_resnet"]


class Block(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, beside a shortcut."""

    features: int
    stride: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map [batch, height, width, in] to the sum and to the first batch norm of `x`."""
        strides = (self.stride, self.stride)

        def norm(y: jax.Array, name: str) -> jax.Array:
            return batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype, name=name)(y)

        normed = norm(x, "bn1")
        active = nn.relu(normed)
        y = Conv(self.features, strides=strides, dtype=self.dtype, name="conv1")(active)
        y = nn.relu(norm(y, "bn2"))
        y = Conv(self.features, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] == self.features:
            return x + y, normed
        project = Conv(self.features, (1, 1), strides=strides, dtype=self.dtype, name="shortcut")
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
        x = Conv(16, dtype=self.dtype, name="conv1")(x)
        features = {"stem": x}
        for stage in (1, 2, 3):
            width = 16 * self.widen * 2 ** (stage - 1)
            for index in range((self.depth - 4) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"block{stage}_{index}"
                block = Block(width, stride, self.dtype, self.axis_name, name=name)
                x, normed = block(x, train)
                if stage > 1 and index == 0:
                    features[f"stage{stage - 1}_pre"] = normed
            features[f"stage{stage}"] = x
        norm = batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype, name="bn1")
        features["stage3_pre"] = norm(x)
        features["pooled"] = global_average(nn.relu(features["stage3_pre"]))
        return Outputs(linear(self.num_classes, name="fc")(features["pooled"]), features)


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
    return WideResNet(
        num_classes=num_classes,
        depth=depth,
        widen=widen,
        dtype=compute_dtype(dtype),
        axis_name=axis_name,
    )
