"""ReviewKD's term: fused levels of the student beside the teacher's layers."""

from collections.abc import Sequence

from kdjax import losses
from kdjax.distill.terms.spec import Definition
from kdjax.types import Array, Batch, Outputs, Scalars

LEVELS = ("stage1_pre", "stage2_pre", "stage3_pre", "pooled")


def review(own_layer: str = "review", peer_layers: Sequence[str] = LEVELS) -> Definition:
    """ReviewKD: context of the levels that an adapter of kind "fusion" makes, summed over them.

    Level i is the feature "<own_layer>i" of the player, and the i-th of `peer_layers`, shallow to
    deep; vectors count as maps of 1 x 1.

    Source: Chen et al. 2021 (arXiv 2104.09044).
    """
    peers_of = tuple(peer_layers)
    pairs = tuple((f"{own_layer}{level}", peer) for level, peer in enumerate(peers_of, start=1))

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        levels = [(own.features[a], peers[0].features[b]) for a, b in pairs]
        first, *rest = (losses.hierarchical_context(_as_map(a), _as_map(b)) for a, b in levels)
        return sum(rest, first)

    return Definition(value, {}, layers=pairs)


def _as_map(features: Array) -> Array:
    return features[:, None, None] if features.ndim == 2 else features
