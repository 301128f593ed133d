"""Connectors: a 1x1 convolution and batch norm on each of several maps (AB, OFD, SRRL)."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from kdjax.errors import UserError, check_count
from kdjax.models.layers.layers import Mode, compute_dtype, conv_norm
from kdjax.models.wrappers.adapters import Adapter
from kdjax.types import Array


class Connector(nn.Module):
    """A 1x1 convolution and batch norm on each map; see `connector_adapter`."""

    widths: tuple[int, ...]
    relu: bool
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: Sequence[Array], train: bool) -> tuple[Array, ...]:
        """Map maps [batch, h_i, w_i, channel_i] to [batch, h_i, w_i, widths[i]]."""
        mode, outputs = Mode(train, self.axis_name, self.dtype), []
        for level, (x, width) in enumerate(zip(features, self.widths, strict=True), start=1):
            x = conv_norm(width, mode, (f"conv{level}", f"bn{level}"), kernel=1)(x)
            outputs.append(nn.relu(x) if self.relu else x)
        return tuple(outputs)


def connector_adapter(
    *,
    layers: Sequence[str],
    widths: Sequence[int],
    relu: bool = False,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Adapter:
    """Project maps to a teacher's channels: batch_norm(conv 1x1(x)), without bias.

    Args:
      layers: maps [batch, height, width, channel].
      widths: channels of the teacher's layers.
      relu: whether a ReLU follows.
      dtype: of the computation.
      axis_name: pmap axis over which batch norm is taken.

    Returns:
      An Adapter with a feature "<name>1", "<name>2", ... for each of `layers`.

    Raises:
      UserError: not as many widths as layers, or a width below 1.

    >>> connector_adapter(layers=("stage1_pre", "stage2_pre"), widths=(64, 128)).suffixes
    ('1', '2')
    """
    if not layers or len(layers) != len(widths):
        raise UserError(
            f"layers has {len(layers)} names and widths {len(widths)} numbers; give one width of "
            "the teacher for each layer"
        )
    for width in widths:
        check_count("an entry of widths", width)
    module = Connector(tuple(widths), relu, compute_dtype(dtype), axis_name)
    return Adapter(module, tuple(layers), tuple(str(i + 1) for i in range(len(layers))))
