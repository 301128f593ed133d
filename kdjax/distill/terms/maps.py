"""Terms that read feature maps of several stages, or the last linear layer's parameters.

Where shapes differ, give the student a "connector" adapter; its level i is the feature
"<own_layer>i", compared with the i-th of `peer_layers`.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.features import STAGES, Layers, summed
from kdjax.distill.terms.logits import DECOUPLED
from kdjax.distill.terms.spec import (
    NOT_NEGATIVE,
    POSITIVE,
    Scalar,
    Teachers,
    TermSpec,
    paired_layers,
    parameter_name,
)
from kdjax.types import Array, Batch, Outputs, Scalars

BEFORE_RELU = ("stage1_pre", "stage2_pre", "stage3_pre")
LAST_NORMS = ("layer1_*/bn2", "layer2_*/bn2", "layer3_*/bn2")


def neuron_selectivity(
    own_layers: Sequence[str] = STAGES, peer_layers: Sequence[str] = STAGES
) -> TermSpec:
    """NST: distributions of channel activations, summed over the stages; default weight 50."""
    layers = paired_layers(own_layers, peer_layers)
    loss_fn = summed(losses.neuron_selectivity, layers)
    return TermSpec(loss_fn, {"weight": Scalar(50.0)}, layers=layers, match="free")


def flow_of_solution(
    own_layers: Sequence[str] = ("stem", *STAGES), peer_layers: Sequence[str] = ("stem", *STAGES)
) -> TermSpec:
    """FSP: products of consecutive layers' channels; default weight 50; published for a warm-up."""
    return _consecutive(losses.flow_of_solution, own_layers, peer_layers, 50.0)


def singular_vectors(
    own_layers: Sequence[str] = STAGES,
    peer_layers: Sequence[str] = STAGES,
    count: int = 1,
    channels: bool = False,
) -> TermSpec:
    """KDSVD: leading singular vectors of consecutive layers.

    `count` and `channels`: as in `losses.singular_vectors`.
    """

    def loss(student: Sequence[Array], teacher: Sequence[Array]) -> Array:
        return losses.singular_vectors(student, teacher, count=count, channels=channels)

    return _consecutive(loss, own_layers, peer_layers, 1.0)


def _consecutive(
    loss: Callable[[Sequence[Array], Sequence[Array]], Array],
    own_layers: Sequence[str],
    peer_layers: Sequence[str],
    weight: float,
) -> TermSpec:
    layers = paired_layers(own_layers, peer_layers)

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        own = [student.features[s] for s, _ in layers]
        return loss(own, [teachers[0].features[t] for _, t in layers])

    return TermSpec(loss_fn, {"weight": Scalar(weight)}, layers=layers, match="free")


def activation_boundary(
    own_layer: str = "connector", peer_layers: Sequence[str] = BEFORE_RELU
) -> TermSpec:
    """AB: signs of activations; a layer has half the next one's weight; for a warm-up."""
    layers = _levels(own_layer, peer_layers)
    loss_fn = summed(losses.activation_boundary, layers, halved=True)
    scalars = {"weight": Scalar(0.003), "margin": Scalar(1.0, POSITIVE)}
    return TermSpec(loss_fn, scalars, layers=layers)


def margin_relu_distance(
    own_layer: str = "connector",
    peer_layers: Sequence[str] = BEFORE_RELU,
    norms: Sequence[str] = LAST_NORMS,
) -> TermSpec:
    """OFD: activations before the ReLU; default weight .001; each layer has half that of the next.

    `norms` are the teacher's batch norms before these layers, whose parameters give the margins.
    """
    layers = _levels(own_layer, peer_layers)
    paths = tuple((f"{norm}/scale", f"{norm}/bias") for norm in norms)

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        features = teachers[0].features
        margins = iter(
            losses.negative_margin(*(features[parameter_name(path)] for path in pair))
            for pair in paths
        )

        def loss(s: Array, t: Array) -> Array:
            return losses.margin_relu_distance(s, t, next(margins))

        return summed(loss, layers, halved=True)(student, teachers, batch, scalars)

    return TermSpec(
        loss_fn,
        {"weight": Scalar(1e-3)},
        layers=layers,
        match="free",
        parameters=tuple(path for pair in paths for path in pair),
    )


def _levels(own_layer: str, peer_layers: Sequence[str]) -> Layers:
    return tuple((f"{own_layer}{i}", name) for i, name in enumerate(peer_layers, start=1))


def softmax_regression(own_layer: str = "connector1", peer_layer: str = "pooled") -> TermSpec:
    """SRRL: features, and their logits from the teacher's head; needs a connector with ReLU."""
    kernel = "fc/kernel"

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        features = teachers[0].features
        return losses.softmax_regression(
            student.features[own_layer],
            features[peer_layer],
            features[parameter_name(kernel)],
            **scalars,
        )

    return TermSpec(
        loss_fn,
        {"regression_weight": Scalar(1.0, NOT_NEGATIVE)},
        layers=((own_layer, peer_layer),),
        match="free",
        parameters=(kernel,),
    )


def class_activation(
    own_layer: str = "last_map",
    peer_layer: str = "last_map",
    resolution: int = 2,
    normalize: bool = False,
    binarize: bool = False,
) -> TermSpec:
    """CAT-KD: class maps; published weights .7 to 15, for normalized maps 15 to 600.

    `resolution`, `normalize` and `binarize`: as in `losses.class_activation`.
    """

    def loss(student: Array, teacher: Array, batch: Batch, scalars: Scalars) -> Array:
        return losses.class_activation(
            student, teacher, resolution=resolution, normalize=normalize, binarize=binarize
        )

    return _class_maps(loss, own_layer, peer_layer, {})


def regional_kl(
    own_layer: str = "last_map", peer_layer: str = "last_map", grids: Sequence[int] = (1, 2, 4)
) -> TermSpec:
    """SDD-KD: KL(teacher || student) in regions of an image, times T^2; default weight .9."""
    scalars = {"weight": Scalar(0.9), "temperature": Scalar(4.0, POSITIVE)}
    return _regional(losses.regional_kl, own_layer, peer_layer, grids, scalars)


def regional_decoupled_kl(
    own_layer: str = "last_map", peer_layer: str = "last_map", grids: Sequence[int] = (1, 2, 4)
) -> TermSpec:
    """SDD-DKD: DKD in regions of an image, times T^2; published with a linear ramp."""
    return _regional(losses.regional_decoupled_kl, own_layer, peer_layer, grids, DECOUPLED)


def _regional(
    loss: Callable[..., Array],
    own_layer: str,
    peer_layer: str,
    grids: Sequence[int],
    scalars: dict[str, Scalar],
) -> TermSpec:
    def regional_loss(student: Array, teacher: Array, batch: Batch, scalars: Scalars) -> Array:
        regions = (losses.region_logits(maps, grids=grids) for maps in (student, teacher))
        return loss(*regions, batch["label"], **scalars)

    spec = _class_maps(regional_loss, own_layer, peer_layer, scalars)
    return spec._replace(scale_by_temperature_squared=True)


def _class_maps(
    loss: Callable[[Array, Array, Batch, Scalars], Array],
    own_layer: str,
    peer_layer: str,
    scalars: dict[str, Scalar],
) -> TermSpec:
    """Compare class maps: maps after each network's own last linear layer, "fc"."""
    paths = ("fc/kernel", "fc/bias")

    def class_maps(outputs: Outputs, layer: str) -> Array:
        kernel, bias = (outputs.features[parameter_name(path)] for path in paths)
        return jnp.asarray(outputs.features[layer], jnp.float32) @ kernel + bias

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        teacher = class_maps(teachers[0], peer_layer)
        return loss(class_maps(student, own_layer), teacher, batch, scalars)

    return TermSpec(
        loss_fn,
        scalars,
        layers=((own_layer, peer_layer),),
        match="free",
        own_parameters=paths,
        parameters=paths,
    )
