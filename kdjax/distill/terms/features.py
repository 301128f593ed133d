"""Terms that read features. Layers are names in `Outputs.features`.

Where the widths of two layers differ, give the student an adapter; `own_layer` is then the
adapter's name.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import POSITIVE, Scalar, Teachers, TermSpec, paired_layers
from kdjax.types import Array, Batch, Outputs, Scalars

STAGES = ("stage1", "stage2", "stage3")

Layers = tuple[tuple[str, str], ...]


def feature_mse(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """FitNet's hint: mean squared error between two layers' features of equal width."""
    return _pair(losses.feature_mse, own_layer, peer_layer)


def attention_transfer(
    own_layers: Sequence[str] = STAGES, peer_layers: Sequence[str] = STAGES
) -> TermSpec:
    """AT: attention maps, summed over the stages; heights and widths must be equal."""
    layers = paired_layers(own_layers, peer_layers)
    return TermSpec(summed(losses.attention_transfer, layers), {}, layers=layers, match="space")


def summed(
    loss: Callable[..., Array], layers: Layers, *, halved: bool = False
) -> Callable[[Outputs, Teachers, Batch, Scalars], Array]:
    """Sum a loss over pairs of layers; `halved`: each layer has half the weight of the next."""
    factors = [2.0 ** (i + 1 - len(layers)) if halved else 1.0 for i in range(len(layers))]

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        features = [(student.features[s], teachers[0].features[t]) for s, t in layers]
        values = [f * loss(*pair, **scalars) for f, pair in zip(factors, features, strict=True)]
        return jnp.sum(jnp.stack(values), axis=0)

    return loss_fn


def similarity_preserving(own_layer: str = "stage3", peer_layer: str = "stage3") -> TermSpec:
    """SP: similarities of the examples of a batch."""
    return _relation(losses.similarity_preserving, own_layer, peer_layer)


def relational_distance(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """RKD's distances between the examples of a batch."""
    return _relation(losses.relational_distance, own_layer, peer_layer)


def relational_angle(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """RKD's angles between triples of a batch."""
    return _relation(losses.relational_angle, own_layer, peer_layer)


def probabilistic_knowledge_transfer(
    own_layer: str = "pooled", peer_layer: str = "pooled"
) -> TermSpec:
    """PKT: probabilities of being neighbours in a batch."""
    return _relation(losses.probabilistic_knowledge_transfer, own_layer, peer_layer)


def log_sum_distance(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """SRD: log sum of differences of standardized columns; published with forward_kl."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        pair = student.features[own_layer], teachers[0].features[peer_layer]
        return losses.log_sum_distance(*pair, **scalars)

    scalars = {"exponent": Scalar(4.0, POSITIVE)}
    return TermSpec(loss_fn, scalars, coupled=True, layers=((own_layer, peer_layer),))


def _pair(loss: Callable[[Array, Array], Array], own_layer: str, peer_layer: str) -> TermSpec:
    """Compare one layer of the student with one of a teacher."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return loss(student.features[own_layer], teachers[0].features[peer_layer])

    return TermSpec(loss_fn, {}, layers=((own_layer, peer_layer),))


def _relation(loss: Callable[[Array, Array], Array], own_layer: str, peer_layer: str) -> TermSpec:
    return _pair(loss, own_layer, peer_layer)._replace(match="free", coupled=True)


def norm_direction(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """ND: moves features towards a frozen teacher's class means; norms may exceed the teacher's."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        features = teachers[0].features
        means = features[class_means_name(peer_layer)]
        return losses.norm_direction(
            student.features[own_layer], features[peer_layer], means, batch["label"]
        )

    return TermSpec(loss_fn, {}, layers=((own_layer, peer_layer),), class_means=peer_layer)


def class_mean_cosine(own_layer: str = "pooled", peer_layer: str = "pooled") -> TermSpec:
    """ND's ablation: direction only, 1 - cosine to the frozen teacher's class mean."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        means = teachers[0].features[class_means_name(peer_layer)]
        return losses.class_mean_cosine(student.features[own_layer], means, batch["label"])

    return TermSpec(loss_fn, {}, layers=((own_layer, peer_layer),), class_means=peer_layer)


def stepwise_norm(own_layer: str = "pooled") -> TermSpec:
    """ND's ablation: norm only (SIFN); the target of each norm is itself plus `step`."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return losses.stepwise_norm(student.features[own_layer], **scalars)

    layers = ((own_layer, own_layer),)
    return TermSpec(loss_fn, {"step": Scalar(1.0, POSITIVE)}, teachers="none", layers=layers)


def class_means_name(layer: str) -> str:
    """Return the name of the feature that holds a layer's class means, [classes, width]."""
    return f"{layer}_class_means"
