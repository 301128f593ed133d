"""ReviewKD's term: compares fused levels of the student with the teacher's layers."""

from collections.abc import Sequence

from kdjax import losses
from kdjax.distill.terms.spec import Teachers, TermSpec
from kdjax.types import Array, Batch, Outputs, Scalars

LEVELS = ("stage1_pre", "stage2_pre", "stage3_pre", "pooled")


def hierarchical_context(
    own_layer: str = "review", peer_layers: Sequence[str] = LEVELS
) -> TermSpec:
    """ReviewKD: hierarchical context loss, summed over the levels of a "fusion" adapter.

    Level i is the student's feature "<own_layer>i", compared with the i-th of `peer_layers`,
    shallow to deep; vectors count as maps of 1 x 1.

    Source: Chen et al. 2021 (arXiv 2104.09044).
    """
    pairs = tuple((f"{own_layer}{level}", name) for level, name in enumerate(peer_layers, start=1))

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        levels = [(student.features[s], teachers[0].features[t]) for s, t in pairs]
        first, *rest = (losses.hierarchical_context(_as_map(s), _as_map(t)) for s, t in levels)
        return sum(rest, first)

    return TermSpec(loss_fn, {}, layers=pairs)


def _as_map(features: Array) -> Array:
    return features[:, None, None] if features.ndim == 2 else features
