"""Terms that look at features. Layers are names in `Outputs.features`.

Where the widths of two layers differ, the player carries an adapter and `own_layer` is the
adapter's name.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import Definition, Scalar, Value
from kdjax.types import Array, Batch, Outputs, Scalars

STAGES = ("stage1", "stage2", "stage3")


def _features(loss: Callable[..., Array], own_layer: str, peer_layer: str) -> Value:
    """Look at one layer of the player and one of a peer."""
    return lambda own, peers, batch, scalars: loss(
        own.features[own_layer], peers[0].features[peer_layer], **scalars
    )


def hint(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """FitNet's hint: mean squared error between two layers' features of one width."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.feature_mse(own.features[own_layer], peers[0].features[peer_layer])

    return Definition(value, {}, layers=((own_layer, peer_layer),))


def attention_transfer(
    own_layers: Sequence[str] = STAGES, peer_layers: Sequence[str] = STAGES
) -> Definition:
    """AT: attention maps of stages, summed over the stages; only their sizes must agree."""
    pairs = tuple(zip(own_layers, peer_layers, strict=True))

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        parts = [losses.attention_transfer(own.features[a], peers[0].features[b]) for a, b in pairs]
        return jnp.sum(jnp.stack(parts), axis=0)

    return Definition(value, {}, layers=pairs, match="space")


def _relation(loss: Callable[..., Array], own_layer: str, peer_layer: str) -> Definition:
    pair = ((own_layer, peer_layer),)
    value = _features(loss, own_layer, peer_layer)
    return Definition(value, {}, layers=pair, match="free", coupled=True)


def similarity_preserving(own_layer: str = "stage3", peer_layer: str = "stage3") -> Definition:
    """SP: similarities of the examples of a batch."""
    return _relation(losses.similarity_preserving, own_layer, peer_layer)


def relational_distance(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """RKD's distances between the examples of a batch."""
    return _relation(losses.relational_distance, own_layer, peer_layer)


def relational_angle(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """RKD's angles between triples of a batch."""
    return _relation(losses.relational_angle, own_layer, peer_layer)


def probabilistic_knowledge_transfer(
    own_layer: str = "pooled", peer_layer: str = "pooled"
) -> Definition:
    """PKT: probabilities of being neighbours in a batch."""
    return _relation(losses.probabilistic_knowledge_transfer, own_layer, peer_layer)


def norm_direction(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """ND: along the frozen peer's class mean, with a norm that may grow past the peer's."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        student, teacher = own.features[own_layer], peers[0].features[peer_layer]
        means = peers[0].features[class_means_name(peer_layer)]
        return losses.norm_direction(student, teacher, means, batch["label"])

    return Definition(value, {}, layers=((own_layer, peer_layer),), class_means=peer_layer)


def class_mean_cosine(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """ND's ablation: direction only, 1 - cosine to the frozen peer's class mean."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        means = peers[0].features[class_means_name(peer_layer)]
        return losses.class_mean_cosine(own.features[own_layer], means, batch["label"])

    return Definition(value, {}, layers=((own_layer, peer_layer),), class_means=peer_layer)


def stepwise_norm(own_layer: str = "pooled") -> Definition:
    """ND's ablation: norm only (SIFN), each norm towards itself plus `step`."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.stepwise_norm(own.features[own_layer], **scalars)

    layers = ((own_layer, own_layer),)
    return Definition(value, {"step": Scalar(1.0)}, peers="none", layers=layers)


def class_means_name(layer: str) -> str:
    """The feature under which a frozen network shows its class means, [classes, width]."""
    return f"{layer}_class_means"
