"""A small convolutional network that is fast on a CPU."""

from collections.abc import Sequence
from typing import Any

import jax
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

__all__ = ["Cnn", "cnn"]


class Cnn(nn.Module):
    """Convolutions of stride 2 with batch norm and ReLU; see `cnn`."""

    num_classes: int
    widths: tuple[int, ...]
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and features "stage1", ..., "pooled"."""
        features = {}
        for number, width in enumerate(self.widths, start=1):
            x = Conv(width, strides=(2, 2), dtype=self.dtype, name=f"conv{number}")(x)
            x = batch_norm(
                train=train, axis_name=self.axis_name, dtype=self.dtype, name=f"bn{number}"
            )(x)
            features[f"stage{number}_pre"] = x
            x = features[f"stage{number}"] = nn.relu(x)
        features["pooled"] = global_average(x)
        return Outputs(linear(self.num_classes, name="fc")(features["pooled"]), features)


def cnn(
    *,
    num_classes: int,
    widths: Sequence[int] = (16, 32, 64),
    dtype: Any = None,
    axis_name: str | None = None,
) -> Cnn:
    """Make a stack of 3x3 stride-2 convolutions with batch norm and ReLU, averaged at its end.

    Every layer halves the image, so that nearly all of the work is in small products: good for
    images of 8 to 64 pixels on a CPU.

    Raises:
      UserError: `widths` is no list of widths or is empty, or `dtype` no floating type.
    """
    found = layer_widths("cnn: widths", widths)
    if not found:
        raise UserError("cnn: widths is empty: give at least one")
    return Cnn(
        num_classes=num_classes, widths=found, dtype=compute_dtype(dtype), axis_name=axis_name
    )
