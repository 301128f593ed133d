"""Residual networks for small images, after He et al. (arXiv 1512.03385, section 4.2)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import (
    batch_norm,
    compute_dtype,
    global_average,
    layer_widths,
    linear,
)
from kdjax.types import Outputs, UserError

__all__ = ["ResNet", "resnet"]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; ReLU comes after the sum."""

    features: int
    stride: int
    shortcut: str
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [batch, height, width, in] to the sum, before its ReLU."""
        strides = (self.stride, self.stride)

        def norm(y: jax.Array, name: str) -> jax.Array:
            return batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype, name=name)(y)

        y = Conv(self.features, strides=strides, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm(y, "bn1"))
        y = norm(Conv(self.features, dtype=self.dtype, name="conv2")(y), "bn2")
        if self.stride == 1 and x.shape[-1] == self.features:
            return x + y
        if self.shortcut == "pad":
            return y + pad_shortcut(x, self.features, self.stride).astype(y.dtype)
        project = Conv(
            self.features, (1, 1), strides=strides, dtype=self.dtype, name="shortcut_conv"
        )
        return y + norm(project(x), "shortcut_bn")


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
        norm = batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype, name="bn1")
        x = nn.relu(norm(Conv(self.widths[0], dtype=self.dtype, name="conv1")(x)))
        features = {"stem": x}
        for stage, width in enumerate(self.widths[1:], start=1):
            for index in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                block = Block(
                    width,
                    stride,
                    self.shortcut,
                    self.dtype,
                    self.axis_name,
                    name=f"layer{stage}_{index}",
                )
                features[f"stage{stage}_pre"] = block(x, train)
                x = features[f"stage{stage}"] = nn.relu(features[f"stage{stage}_pre"])
        features["pooled"] = global_average(x)
        return Outputs(linear(self.num_classes, name="fc")(features["pooled"]), features)


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
    found = layer_widths("resnet: widths", widths)
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"resnet: depth is {depth}: use 6n + 2, that is 8, 14, 20, ...")
    if len(found) != 4:
        raise UserError(f"resnet: widths is {found}: give four, of the stem and of three stages")
    if shortcut not in ("conv", "pad"):
        raise UserError(f'resnet: shortcut is {shortcut!r}: use "conv" or "pad"')
    if shortcut == "pad" and list(found) != sorted(found):
        raise UserError(f'resnet: widths {found} shrink: shortcut "pad" can only add channels')
    return ResNet(
        num_classes=num_classes,
        depth=depth,
        widths=found,
        shortcut=shortcut,
        dtype=compute_dtype(dtype),
        axis_name=axis_name,
    )
