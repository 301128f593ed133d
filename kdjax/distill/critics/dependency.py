"""The Wasserstein dependency between two players' features, as a distillation term."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from kdjax import losses
from kdjax.distill.terms import Critic, InputPenalty, PlayerInputs, Scalar, feature_width
from kdjax.distill.terms.spec import POSITIVE
from kdjax.errors import UserError
from kdjax.losses.dependency import penalty_points
from kdjax.models.lipschitz import pair_critic as pair_critics
from kdjax.types import Array, Outputs, Variables

TERMS = {"dependency": {"penalty": Scalar(10.0, POSITIVE)}}
OBJECTIVES = ("wpc", "cpc", "dual")
PLACES = ("interpolated", "joint", "product")
BOUNDS = ("sphere", "ball")
METRICS = ("features", "inputs")


class DependencyOptions(NamedTuple):
    """Options of `dependency`.

    Args:
      kind: "bilinear" or "concat"; with "_spectral" or "_bjorck" at the end it is 1-Lipschitz.
      objective: "wpc" (predictive coding with a Lipschitz critic), "cpc" (with any critic), "dual".
      width: width of the critic's layers.
      depth: number of layers of the critic's sides, or of its hidden layers.
      radius: length of the bounded features. A Lipschitz critic's scores differ by at most the
        distance of the features, so a small radius keeps "wpc" far from its best value, 0.
      bound: "sphere" scales features to the radius, "ball" projects them into it, which is
        1-Lipschitz; "none" is for a plain kind with the metric of the inputs.
      sides: sides of the penalty, 1 or 2; see `losses.gradient_penalty`.
      at: the pairs at which the penalty is evaluated: "interpolated", "joint" or "product".
      off_diagonal: exclude the real pairs from the second mean of "dual".
      metric: f is 1-Lipschitz in the Euclidean metric of both "features", or of both "inputs" of
        the networks. With "inputs" both players must be trained (`moves="both"`): the penalty of a
        plain kind differentiates and trains the networks; other kinds need Lipschitz networks.
      own_layer: a feature of the student.
      peer_layer: a feature of the teacher.
    """

    kind: str = "bilinear_bjorck"
    objective: str = "wpc"
    width: int = 64
    depth: int = 1
    radius: float = 1.0
    bound: str = "sphere"
    sides: int = 1
    at: str = "interpolated"
    off_diagonal: bool = False
    metric: str = "features"
    own_layer: str = "pooled"
    peer_layer: str = "pooled"


def dependency(options: DependencyOptions = DependencyOptions()) -> Critic:  # noqa: B008  immutable
    """WDM: maximise the dependency between two players' features, measured by a Lipschitz critic.

    A critic f scores every student feature with every teacher feature of the batch (of all
    devices). The term is -J + penalty x gradient penalty, with J the objective: the critic and the
    student both *maximise* J. Plain kinds with a Wasserstein objective have the penalty; in the
    metric of features it trains only the critic, because the features are detached. The metrics
    are `estimate` (J; for "wpc" and "cpc" J + ln(batch), in nats), `slope` (of a plain critic in
    the metric of features: the largest slope at this batch's pairs) and, if there is one,
    `penalty`.

    Raises:
      UserError: an unknown option value or a number out of range, "cpc" with a constrained critic,
        features without a bound; by init, a layer that is not [batch, features]; by the loss, a
        batch of one pair.

    Source: Ozair et al. 2019 (arXiv 1903.11780), reconstruction; its use as a distillation term is
    ours.

    >>> dependency(DependencyOptions(kind="bilinear", objective="cpc")).layers
    (('pooled', 'pooled'),)
    """
    _check(options)
    critic = pair_critics.build(
        options.kind, width=options.width, depth=options.depth, radius=options.radius
    )
    penalised = not critic.constrained and options.objective != "cpc"
    layers = (options.own_layer, options.peer_layer)

    def init(key: Array, student: Outputs, teacher: Outputs, batch) -> Variables:
        pair = zip((student, teacher), layers, strict=True)
        widths = (feature_width(outputs, layer, "dependency") for outputs, layer in pair)
        return critic.init(key, *(jnp.zeros((1, width)) for width in widths))

    def loss(variables: Variables, student: Outputs, teacher: Outputs, batch, scalars, key: Array):
        x, y = (
            _bound_features(outputs.features[layer], options)
            for outputs, layer in zip((student, teacher), layers, strict=True)
        )
        scores, stats = critic.scores(variables, x, y, train=True)
        objective = _objective(scores, options)
        offset = 0.0 if options.objective == "dual" else jnp.log(jnp.float32(len(scores)))
        metrics = {"estimate": objective + offset}
        detached_x, detached_y, detached = lax.stop_gradient((x, y, variables))
        # the slope of a constrained critic has an `upper_bound`
        if not critic.constrained and options.metric == "features":
            slope = pair_critics.measured_slope(critic, detached, detached_x, detached_y)
            metrics["slope"] = slope
        total = -objective
        if penalised and options.metric == "features":
            metrics["penalty"] = losses.gradient_penalty(
                lambda a, b: critic.pairs(variables, a, b),
                detached_x,
                detached_y,
                sides=options.sides,
                at=options.at,
                key=key,
            )
            total = total + scalars["dependency"]["penalty"] * metrics["penalty"]
        return {"dependency": total}, stats, metrics

    penalty = None
    if penalised and options.metric == "inputs":
        penalty = _input_penalty(critic, options)
    in_nats = options.objective != "dual"
    return Critic(
        init, loss, TERMS, (layers,), coupled=True, input_penalty=penalty, in_nats=in_nats
    )


def _objective(scores: Array, options: DependencyOptions) -> Array:
    if options.objective == "dual":
        return losses.dual_dependency(scores, off_diagonal=options.off_diagonal)
    return losses.predictive_coding(scores)


def _input_penalty(critic: pair_critics.PairCritic, options: DependencyOptions) -> InputPenalty:
    """Make the penalty on the slope in both networks' inputs, which trains them and the critic."""

    def input_penalty(variables: Variables, players: PlayerInputs, scalars, key: Array):
        x, y = players.values
        points = players.local_rows(penalty_points(y, at=options.at, key=key))
        layers = (options.own_layer, options.peer_layer)

        def f(a: Array, b: Array) -> Array:
            features = (
                _bound_features(network(z.reshape(-1, *like.shape[1:])).features[layer], options)
                for network, z, like, layer in zip(
                    players.networks, (a, b), (x, y), layers, strict=True
                )
            )
            return critic.pairs(variables, *features)

        flat = (z.reshape(len(z), -1) for z in (players.local_rows(x), points))
        value = losses.gradient_penalty(f, *flat, sides=options.sides, at="joint")
        return {"dependency": scalars["dependency"]["penalty"] * value}, {"penalty": value}

    return input_penalty


def _check(options: DependencyOptions) -> None:
    kind, bound, metric = options.kind, options.bound, options.metric
    for name, value, known in (
        ("objective", options.objective, OBJECTIVES),
        ("at", options.at, PLACES),
        ("metric", metric, METRICS),
    ):
        if value not in known:
            raise UserError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    if options.sides not in (1, 2):
        raise UserError(f"sides is {options.sides!r}; it must be 1 or 2")
    lipschitz = bool(kind.partition("_")[2])
    if metric == "inputs" and lipschitz and bound != "ball":
        raise UserError(
            f"bound is {bound!r}, which is not 1-Lipschitz, as {kind} with metric=inputs must be; "
            "set bound=ball"
        )
    if bound not in BOUNDS and (bound, metric) != ("none", "inputs"):
        raise UserError(
            f"bound is {bound!r}; without a bound on the features the dependency grows without "
            f"limit: use one of {', '.join(BOUNDS)}"
        )
    if options.objective == "cpc" and lipschitz:
        raise UserError(
            f"objective is cpc, which is for unconstrained critics, but {kind} is Lipschitz: set "
            f"objective=wpc or kind={kind.partition('_')[0]}"
        )


def _bound_features(x: Array, options: DependencyOptions) -> Array:
    if options.bound == "none":
        return x
    if options.bound == "ball":
        return pair_critics.lipschitz.project_to_ball(x, options.radius)
    squared = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    nonzero = squared > 0  # a zero vector has no direction: it stays 0, with gradient 0
    return jnp.where(
        nonzero, x * (options.radius / jnp.sqrt(jnp.where(nonzero, squared, 1.0))), 0.0
    )
