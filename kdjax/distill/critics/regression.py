"""Critics with small networks between the features of two players: VID, FT and CC."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms import Critic, Scalar, feature_width
from kdjax.distill.terms.spec import POSITIVE, paired_layers
from kdjax.errors import UserError, check_count, check_layer
from kdjax.models.layers.layers import linear
from kdjax.models.layers.regressors import Paraphraser, Regressor, Translator
from kdjax.types import Array, Outputs, Variables

STAGES = ("stage1", "stage2", "stage3")
INFORMATION_TERMS = {"variational_information": {}}
FACTOR_TERMS = {
    "paraphrase": {},
    "factor_transfer": {"weight": Scalar(1000.0)},
    "spatial_factor_transfer": {"weight": Scalar(200.0)},
}
CONGRUENCE_TERMS = {
    "correlation_congruence": {"weight": Scalar(0.02)},
    "kernel_correlation_congruence": {"weight": Scalar(0.003), "gamma": Scalar(0.4, POSITIVE)},
}
_INITIAL_VARIANCE = 5.0  # of VID's channels
_SIDES = ("student", "teacher")


def variational_information(
    *, own_layers: Sequence[str] = STAGES, peer_layers: Sequence[str] = STAGES
) -> Critic:
    """VID: likelihood of the teacher's maps, Gaussian around a regression from the student's.

    The only term is "variational_information", summed over the layers. Each layer has three 1x1
    convolutions and one variance per channel, initially 5; maps are averaged to equal size.

    Args:
      own_layers: maps of the student.
      peer_layers: maps of the teacher, one for each of `own_layers`.

    Raises:
      UserError: unequal numbers of layers; by init, a layer that is not a map.

    Source: Ahn et al. 2019 (arXiv 1904.05835); widths and initial variance as in public code.

    >>> variational_information(own_layers=("stage1",), peer_layers=("stage2",)).layers
    (('stage1', 'stage2'),)
    """
    layers = paired_layers(own_layers, peer_layers)

    def init(key: Array, student: Outputs, teacher: Outputs, batch) -> Variables:
        params = {}
        for index, (own, peer) in enumerate(layers):
            x, width = _map_shape(student, own), _map_shape(teacher, peer)[-1]
            regressor = Regressor(width).init(jax.random.fold_in(key, index), jnp.zeros(x))
            log_scale = jnp.full(width, jnp.log(jnp.expm1(_INITIAL_VARIANCE)))
            params[str(index)] = {"regressor": regressor["params"], "log_scale": log_scale}
        return Variables(params, {})

    def loss(variables: Variables, student: Outputs, teacher: Outputs, batch, scalars, key: Array):
        total = jnp.float32(0)
        for index, (own, peer) in enumerate(layers):
            params = variables.params[str(index)]
            s, t = losses.match_maps(student.features[own], teacher.features[peer])
            mean = Regressor(t.shape[-1]).apply({"params": params["regressor"]}, s)
            total += losses.variational_information(jnp.asarray(mean), t, params["log_scale"])
        return {"variational_information": total}, variables.stats, {}

    return Critic(init, loss, INFORMATION_TERMS, layers)


def factor_transfer(
    *, own_layer: str = "stage3", peer_layer: str = "stage3", rate: float = 0.5
) -> Critic:
    """FT: translate the student's map to the factors of a paraphraser of the teacher's map.

    The terms are "paraphrase", the mean squared error that trains the paraphraser, and
    "factor_transfer" and "spatial_factor_transfer", which compare the translation with the factors
    (in evaluation mode). As published, the paraphraser is trained first, for 30 epochs
    (`until_step`), then the rest (`from_step`). Its batch statistics and its weight decay go on.

    Args:
      own_layer: a map of the student.
      peer_layer: a map of the teacher; the taller of the two is averaged down.
      rate: number of factors divided by the teacher's channels.

    Raises:
      UserError: rate not in (0, 1]; by init, a layer that is not a map.

    Source: Kim, Park, Kwak 2018 (arXiv 1802.04977).

    >>> sorted(factor_transfer().terms)
    ['factor_transfer', 'paraphrase', 'spatial_factor_transfer']
    """
    if not 0 < rate <= 1:
        raise UserError(f"rate is {rate}; it must be > 0 and <= 1")

    def networks(width: int) -> tuple[Translator, Paraphraser]:
        factors = max(int(width * rate), 1)
        return Translator((factors, factors, factors)), Paraphraser(factors)

    def init(key: Array, student: Outputs, teacher: Outputs, batch) -> Variables:
        own, peer = _map_shape(student, own_layer), _map_shape(teacher, peer_layer)
        translator, paraphraser = networks(peer[-1])
        student_key, teacher_key = jax.random.split(key)
        collections = {
            "translator": translator.init(student_key, jnp.zeros(own)),
            "paraphraser": paraphraser.init(teacher_key, jnp.zeros(peer)),
        }
        params, stats = (
            {name: c[part] for name, c in collections.items()} for part in ("params", "batch_stats")
        )
        return Variables(params, stats)

    def loss(variables: Variables, student: Outputs, teacher: Outputs, batch, scalars, key: Array):
        own, peer = losses.match_maps(student.features[own_layer], teacher.features[peer_layer])
        translator, paraphraser = networks(peer.shape[-1])
        collections = {
            name: {"params": variables.params[name], "batch_stats": stats}
            for name, stats in variables.stats.items()
        }
        translated, updated = translator.apply(
            collections["translator"], own, mutable=["batch_stats"]
        )
        stats = {**variables.stats, "translator": updated["batch_stats"]}
        values = {}
        if "paraphrase" in scalars:
            (_, reconstruction), updated = paraphraser.apply(
                collections["paraphraser"], peer, mutable=["batch_stats"]
            )
            values["paraphrase"] = losses.feature_mse(reconstruction, peer)
            stats["paraphraser"] = updated["batch_stats"]
        factors, _ = paraphraser.clone(train=False).apply(
            jax.lax.stop_gradient(collections["paraphraser"]), peer
        )
        for name in ("factor_transfer", "spatial_factor_transfer"):
            if name in scalars:
                values[name] = getattr(losses, name)(translated, factors)
        return values, stats, {}

    layers = ((own_layer, peer_layer),)
    return Critic(init, loss, FACTOR_TERMS, layers, coupled=True, own_terms=("paraphrase",))


def correlation_congruence(
    *, own_layer: str = "pooled", peer_layer: str = "pooled", width: int = 128
) -> Critic:
    """CC: compare relations between the examples of a batch, in embeddings of both players.

    Each layer goes through a trained linear map of `width`. Terms: "correlation_congruence", of
    neighbours in the batch, and "kernel_correlation_congruence".

    Args:
      own_layer: a feature [batch, width] of the student.
      peer_layer: a feature [batch, width] of the teacher.
      width: width of the embeddings.

    Raises:
      UserError: width below 1; by init, a layer that is not [batch, features].

    Source: Peng et al. 2019 (arXiv 1904.01802); width as in public code.

    >>> correlation_congruence(width=8).layers
    (('pooled', 'pooled'),)
    """
    check_count("width", width)
    head, layers = linear(width, name="head"), (own_layer, peer_layer)

    def init(key: Array, student: Outputs, teacher: Outputs, batch) -> Variables:
        sides = zip(_SIDES, jax.random.split(key), (student, teacher), layers, strict=True)
        params = {}
        for side, side_key, outputs, layer in sides:
            inputs = jnp.zeros((1, feature_width(outputs, layer, "correlation_congruence")))
            params[side] = head.init(side_key, inputs)["params"]
        return Variables(params, {})

    def loss(variables: Variables, student: Outputs, teacher: Outputs, batch, scalars, key: Array):
        s, t = (
            jnp.asarray(head.apply({"params": variables.params[side]}, outputs.features[layer]))
            for side, outputs, layer in zip(_SIDES, (student, teacher), layers, strict=True)
        )
        values = {n: getattr(losses, n)(s, t, **options) for n, options in scalars.items()}
        return values, variables.stats, {}

    return Critic(init, loss, CONGRUENCE_TERMS, (layers,), coupled=True)


def _map_shape(outputs: Outputs, layer: str) -> tuple[int, ...]:
    """Return the shape of a map of one example.

    Raises:
      UserError: no such layer, or a layer that is not a map.
    """
    check_layer("it reads maps", layer, outputs.features)
    shape = outputs.features[layer].shape
    if len(shape) != 4:
        raise UserError(
            f"it reads maps [batch, height, width, channel], but layer {layer!r} is {shape}"
        )
    return (1, *shape[1:])
