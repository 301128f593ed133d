"""The networks of a detector: a backbone's feature pyramid (arXiv 1612.03144) and two heads.

The functions between these networks (anchors, proposals, sampling) are in `proposals`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.layers.conv import Conv


class Pyramid(nn.Module):
    """Lateral 1x1 convolutions, a top-down path, 3x3 convolutions, and one more, halved level."""

    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Map n stages, fine to coarse, to n + 1 levels of `width` channels."""
        levels, above = [], None
        for number in reversed(range(len(stages))):
            name = f"lateral{number + 1}"
            x = Conv(self.width, (1, 1), use_bias=True, dtype=self.dtype, name=name)(stages[number])
            if above is not None:
                x = x + jnp.repeat(jnp.repeat(above, 2, axis=1), 2, axis=2)
            above = x
            name = f"output{number + 1}"
            levels.append(Conv(self.width, use_bias=True, dtype=self.dtype, name=name)(x))
        levels.reverse()
        return (*levels, levels[-1][:, ::2, ::2])


class ProposalHead(nn.Module):
    """The proposal network: a 3x3 convolution, then an objectness and a box for each ratio."""

    ratios: int
    dtype: Any = None

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Map levels to logits [batch, anchors] and deltas [batch, anchors, 4], level by level."""
        conv = Conv(levels[0].shape[-1], use_bias=True, dtype=self.dtype, name="conv")
        logits = nn.Conv(self.ratios, (1, 1), kernel_init=_normal(0.01), name="logits")
        deltas = nn.Conv(4 * self.ratios, (1, 1), kernel_init=_normal(0.01), name="deltas")
        outputs = []
        for level in levels:
            x = nn.relu(conv(level)).astype(jnp.float32)
            batch = x.shape[0]
            outputs.append((logits(x).reshape(batch, -1), deltas(x).reshape(batch, -1, 4)))
        all_logits, all_deltas = zip(*outputs, strict=True)
        return jnp.concatenate(all_logits, axis=1), jnp.concatenate(all_deltas, axis=1)


class BoxHead(nn.Module):
    """Two linear layers over a region's bins, then its class (background last) and its box."""

    num_classes: int
    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map [n, bins, bins, channel] to logits, deltas and the feature before the last layers.

        Shapes [n, classes], [n, classes - 1, 4] and [n, width], float32.
        """
        uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.width, kernel_init=uniform, dtype=self.dtype, name="fc1")(x))
        x = nn.relu(nn.Dense(self.width, kernel_init=uniform, dtype=self.dtype, name="fc2")(x))
        x = x.astype(jnp.float32)
        logits = nn.Dense(self.num_classes, kernel_init=_normal(0.01), name="fc")(x)
        boxes = 4 * (self.num_classes - 1)
        deltas = nn.Dense(boxes, kernel_init=_normal(0.001), name="deltas")(x)
        return logits, deltas.reshape(x.shape[0], -1, 4), x


class Detector(nn.Module):
    """All networks of a detector; the backbone's `Outputs.features` have its four stages."""

    backbone: nn.Module
    pyramid: Pyramid
    proposal: ProposalHead
    box: BoxHead
    bins: int
    frozen_norm: bool

    def levels(self, image: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """Map images [batch, height, width, channel] to five levels."""
        stages = self.backbone(image, train=train and not self.frozen_norm).features
        return self.pyramid([stages[f"stage{number}"] for number in (1, 2, 3, 4)])

    def propose(self, levels: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Apply the `ProposalHead`."""
        return self.proposal(levels)

    def classify(self, regions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Apply the `BoxHead`."""
        return self.box(regions)

    def __call__(self, image: jax.Array) -> Any:
        """Use every parameter, for `init`."""
        levels = self.levels(image, train=False)
        bins = jnp.zeros((1, self.bins, self.bins, levels[0].shape[-1]), jnp.float32)
        return self.propose(levels), self.classify(bins)


def _normal(stddev: float) -> nn.initializers.Initializer:
    return nn.initializers.normal(stddev)
