"""The Wasserstein dependency between two players' features, as a distillation term."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from kdjax import losses
from kdjax.distill.critics.layer import feature_width
from kdjax.distill.terms import Critic, Scalar, Through
from kdjax.distill.terms.spec import POSITIVE
from kdjax.losses.dependency import penalty_points
from kdjax.models.lipschitz import pair_critic as pair_critics
from kdjax.types import Array, Outputs, UserError, Variables

TERMS = {"dependency": {"penalty": Scalar(10.0, POSITIVE)}}
OBJECTIVES = ("wpc", "cpc", "dual")
PLACES = ("interpolated", "joint", "product")
BOUNDS = ("sphere", "ball")
METRICS = ("features", "inputs")


def dependency(
    *,
    kind: str = "bilinear_bjorck",
    objective: str = "wpc",
    width: int = 64,
    depth: int = 1,
    radius: float = 1.0,
    bound: str = "sphere",
    sides: int = 1,
    at: str = "interpolated",
    off_diagonal: bool = False,
    metric: str = "features",
    own_layer: str = "pooled",
    peer_layer: str = "pooled",
) -> Critic:
    """WDM: the dependency between two players' features of an example, by a Lipschitz critic.

    A critic scores every own feature with every peer's feature of the batch (of all devices). The
    term is -J + penalty x gradient penalty, with J the objective: both the critic and the player
    that learns *ascend* J. The penalty belongs to the plain kinds with a Wasserstein objective;
    in the metric of features these are detached, so that it moves the critic alone. It reports
    `estimate` (the value of J; plus ln(batch), in nats, unless "dual"), `slope` (of a plain critic,
    the largest at this batch's pairs: a lower value; not with "inputs") and, where it counts,
    `penalty`.

    Args:
      kind: one of `models.critic.KINDS`; those that end in _spectral or _bjorck are 1-Lipschitz.
      objective: "wpc" (predictive coding), "cpc" (the same with any critic), "dual".
      width: of the critic's layers.
      depth: of the critic's sides, or of its hidden layers.
      radius: length that features are brought to. A Lipschitz critic's scores differ by no more
        than their distance, so that a small radius leaves "wpc" far from its best value, 0.
      bound: how: "sphere" divides by their length, "ball" projects, and is 1-Lipschitz; "none" of
        a plain kind with the metric of the inputs.
      sides: of the penalty.
      at: where it is taken.
      off_diagonal: of "dual".
      metric: in which f does not stretch: Euclidean of both "features", or of both "inputs" of the
        networks. Then a plain kind's penalty looks through the networks and moves them too; the
        others need networks that are Lipschitz themselves. Both players learn (`moves="both"`).
      own_layer: a feature of the player that learns.
      peer_layer: a feature of the other one.

    Raises:
      UserError: an unknown word or a number out of range, "cpc" with a constrained critic, features
        that nothing bounds; by init, a layer that is not [batch, features]; by the loss, one pair.

    Source: Ozair et al. 2019 (arXiv 1903.11780), reconstruction; as a distillation term it is new.

    >>> dependency(kind="bilinear", objective="cpc").layers
    (('pooled', 'pooled'),)
    """
    _check(objective, at, bound, kind, metric)
    if sides not in (1, 2):
        raise UserError(f"sides is {sides!r}; it must be 1 or 2")
    critic = pair_critics.build(kind, width=width, depth=depth, radius=radius)
    penalised = not critic.constrained and objective != "cpc"

    def value(scores: Array) -> Array:
        if objective == "dual":
            return losses.dual_dependency(scores, off_diagonal=off_diagonal)
        return losses.predictive_coding(scores)

    def init(key: Array, own: Outputs, peer: Outputs, batch) -> Variables:
        sides = ((own, own_layer), (peer, peer_layer))
        widths = (feature_width(outputs, layer, "dependency") for outputs, layer in sides)
        return critic.init(key, *(jnp.zeros((1, size)) for size in widths))

    def loss(variables: Variables, own: Outputs, peer: Outputs, batch, scalars, key: Array):
        x = _bounded(own.features[own_layer], radius, bound)
        y = _bounded(peer.features[peer_layer], radius, bound)
        scores, after = critic.scores(variables, x, y, train=True)
        found = value(scores)
        offset = 0.0 if objective == "dual" else jnp.log(jnp.float32(len(scores)))
        said = {"estimate": found + offset}
        still_x, still_y, still = lax.stop_gradient((x, y, variables))
        if not critic.constrained and metric == "features":  # others have an `upper_bound`
            said["slope"] = pair_critics.measured_slope(critic, still, still_x, still_y)
        total = -found
        if penalised and metric == "features":
            said["penalty"] = losses.gradient_penalty(
                lambda a, b: critic.pairs(variables, a, b),
                still_x,
                still_y,
                sides=sides,
                at=at,
                key=key,
            )
            total = total + scalars["dependency"]["penalty"] * said["penalty"]
        return {"dependency": total}, after, said

    layers, looks = (own_layer, peer_layer), None
    if penalised and metric == "inputs":
        looks = _through(critic, layers, lambda x: _bounded(x, radius, bound), sides, at)
    nats = objective != "dual"
    return Critic(init, loss, TERMS, (layers,), coupled=True, through=looks, in_nats=nats)


def _through(
    critic: pair_critics.PairCritic,
    layers: tuple[str, str],
    bounded: Callable[[Array], Array],
    sides: int,
    at: str,
) -> Through:
    """The penalty on the slope in the inputs of both networks, which it moves with the critic."""

    def through(variables: Variables, networks, x: Array, y: Array, share, scalars, key: Array):
        points = share(penalty_points(y, at=at, key=key))

        def f(a: Array, b: Array) -> Array:
            own, peer = (
                bounded(network(z.reshape(-1, *like.shape[1:])).features[layer])
                for network, z, like, layer in zip(networks, (a, b), (x, y), layers, strict=True)
            )
            return critic.pairs(variables, own, peer)

        flat = (z.reshape(len(z), -1) for z in (share(x), points))
        value = losses.gradient_penalty(f, *flat, sides=sides, at="joint")
        return {"dependency": scalars["dependency"]["penalty"] * value}, {"penalty": value}

    return through


def _check(objective: str, at: str, bound: str, kind: str, metric: str) -> None:
    for name, word, known in (
        ("objective", objective, OBJECTIVES), ("at", at, PLACES), ("metric", metric, METRICS)
    ):  # fmt: skip
        if word not in known:
            raise UserError(f"{name} is {word!r}; it must be one of {', '.join(known)}")
    lipschitz = bool(kind.partition("_")[2])
    if metric == "inputs" and lipschitz and bound != "ball":
        raise UserError(
            f"bound is {bound!r}, which stretches, but {kind} with metric=inputs must not; set "
            "bound=ball"
        )
    if bound not in BOUNDS and (bound, metric) != ("none", "inputs"):
        raise UserError(
            f"bound is {bound!r}; without a bound on the features the dependency grows without "
            f"limit: take one of {', '.join(BOUNDS)}"
        )
    if objective == "cpc" and lipschitz:
        raise UserError(
            f"objective is cpc, which takes any critic, but {kind} is Lipschitz: say wpc, or take "
            f"{kind.partition('_')[0]}"
        )


def _bounded(x: Array, radius: float, bound: str) -> Array:
    if bound == "none":
        return x
    if bound == "ball":
        return pair_critics.lipschitz.project_to_ball(x, radius)
    squared = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    some = squared > 0  # a vector of zeros has no direction: it stays, with gradient 0
    return jnp.where(some, x * (radius / jnp.sqrt(jnp.where(some, squared, 1.0))), 0.0)
