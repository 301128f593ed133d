"""A multilayer perceptron on flattened images."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.layers.layers import layer_widths, linear
from kdjax.types import Outputs


class Mlp(nn.Module):
    """Linear layers with ReLU between them; see `mlp`."""

    num_classes: int
    hidden: tuple[int, ...]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, ...] to logits [batch, num_classes] and features "hidden0", ..., "pooled"."""
        x = x.reshape(x.shape[0], -1)
        features = {}
        for index, width in enumerate(self.hidden):
            init = nn.initializers.he_normal()
            x = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f"hidden{index}")(x)
            x = features[f"hidden{index}"] = nn.relu(x)
        features["pooled"] = x.astype(jnp.float32)
        return Outputs(linear(self.num_classes, name="fc")(features["pooled"]), features)


def mlp(
    *,
    num_classes: int,
    hidden: Sequence[int] = (128, 128),
    dtype: Any = None,
    axis_name: str | None = None,
) -> Mlp:
    """Build a perceptron with ReLU layers of these widths; () is a linear classifier.

    `axis_name` is accepted for uniformity and not used.

    Raises:
      UserError: `hidden` is no list of widths.
    """
    del axis_name
    widths = layer_widths("mlp: hidden", hidden)
    return Mlp(num_classes=num_classes, hidden=widths, dtype=dtype)
