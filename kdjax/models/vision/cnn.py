"""A small convolutional network that is fast on a CPU."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import Mode, batch_norm, classify, layer_widths
from kdjax.types import Outputs


class Cnn(nn.Module):
    """Convolutions of stride 2 with batch norm and ReLU; see `cnn`."""

    num_classes: int
    widths: tuple[int, ...]
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and features "stage1", ..., "pooled"."""
        mode, features = Mode(train, self.axis_name, self.dtype), {}
        for number, width in enumerate(self.widths, start=1):
            x = Conv(width, strides=(2, 2), dtype=self.dtype, name=f"conv{number}")(x)
            x = batch_norm(mode, f"bn{number}")(x)
            features[f"stage{number}_pre"] = x
            x = features[f"stage{number}"] = nn.relu(x)
        return classify(x, self.num_classes, features)


def cnn(
    *,
    num_classes: int,
    widths: Sequence[int] = (16, 32, 64),
    dtype: Any = None,
    axis_name: str | None = None,
) -> Cnn:
    """Build a stack of 3x3 stride-2 convolutions with batch norm and ReLU, and average pooling.

    Every layer halves the image, so most of the work is in small matrix products, which are fast
    on a CPU for images of 8 to 64 pixels.

    Raises:
      UserError: `widths` is empty or no list of widths.
    """
    channels = layer_widths("cnn: widths", widths)
    if not channels:
        raise UserError("cnn: widths is empty: give at least one")
    return Cnn(num_classes, channels, dtype, axis_name)
