"""Terms: where in the outputs a loss looks, and how much of it a player minimises.

A *definition* couples a loss to the outputs of a player and its peers. `make_term` adds what a
config decides: towards whom, the weight, the scalars, a ramp. All averaging, weighting and
multiplication by T^2 happens in `methods/`, with the numbers that stand here.

To add a term: write its loss in `losses/`, then three lines below and a name in `DEFINITIONS`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp

from kdjax import losses
from kdjax.types import Array, Batch, Outputs, Scalars, UserError

Value = Callable[[Outputs, Sequence[Outputs], Batch, Scalars], Array]
Ramp = Callable[[Array | int], Array]  # step -> factor

POSITIVE = (0.0, math.inf)  # open intervals
UNIT = (0.0, 1.0)


class Scalar(NamedTuple):
    """A number that a config or a sweep may set; `domain` is an open interval, or None."""

    default: float
    domain: tuple[float, float] | None = None


class Definition(NamedTuple):
    """A loss with the place where it looks.

    `value(own, peers, batch, scalars) -> [batch]`, or [] if `coupled` (the loss mixes examples;
    it then sees the batch of all devices). `peers`: how many other players it compares with:
    "none", "each" (one at a time, averaged) or "all" (at once). `squared`: the gradient of the
    loss falls as 1/T^2, so that the term multiplies by T^2 by default.
    """

    value: Value
    scalars: Mapping[str, Scalar]
    peers: Literal["none", "each", "all"] = "each"
    squared: bool = False
    coupled: bool = False
    layers: tuple[str, str] | None = None  # (own, peer): features that must have one width


class Term(NamedTuple):
    """A definition as one player uses it; `scalars` holds the defaults, "weight" included."""

    definition: Definition
    toward: tuple[str, ...]
    scalars: Mapping[str, float]
    squared: bool
    ramp: Ramp | None


def _logits(loss: Callable[..., Array]) -> Value:
    """Look at the logits of the player and of one peer; every scalar is a keyword of the loss."""
    return lambda own, peers, batch, scalars: loss(own.logits, peers[0].logits, **scalars)


TEMPERATURE = {"temperature": Scalar(1.0, POSITIVE)}


def cross_entropy() -> Definition:
    """Cross-entropy with the labels; `label_smoothing` in [0, 1)."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.cross_entropy(own.logits, batch["label"], **scalars)

    return Definition(value, {"label_smoothing": Scalar(0.0, (-1e-9, 1.0))}, peers="none")


def forward_kl() -> Definition:
    """KL(peer || own), times T^2: Hinton's distillation, DML, the teacher's side of BD-KD."""
    return Definition(_logits(losses.forward_kl), TEMPERATURE, squared=True)


def reverse_kl() -> Definition:
    """KL(own || peer), times T^2."""
    return Definition(_logits(losses.reverse_kl), TEMPERATURE, squared=True)


def jensen_shannon() -> Definition:
    """Generalised Jensen-Shannon divergence, times T^2; `mixture` is the loss's `weight`."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        temperature, mixture = scalars["temperature"], scalars["mixture"]
        return losses.jensen_shannon(
            own.logits, peers[0].logits, temperature=temperature, weight=mixture
        )

    return Definition(value, {**TEMPERATURE, "mixture": Scalar(0.5, UNIT)}, squared=True)


def total_variation() -> Definition:
    """Total variation distance. Its gradient falls as 1/T, so that T^2 is off by default."""
    return Definition(_logits(losses.total_variation), TEMPERATURE)


def balanced_kl() -> Definition:
    """BD-KD's student side: both KLs, weighted per sample by the entropy gap, times T^2."""
    scalars = {"emphasis": Scalar(2.0, POSITIVE), "entropy_temperature": Scalar(1.0, POSITIVE)}
    return Definition(_logits(losses.balanced_kl), {**TEMPERATURE, **scalars}, squared=True)


def weighted_kl() -> Definition:
    """BD-KD's ablations: forward and reverse KL at fixed weights, times T^2."""
    scalars = {"forward_weight": Scalar(1.0), "reverse_weight": Scalar(1.0)}
    return Definition(_logits(losses.weighted_kl), {**TEMPERATURE, **scalars}, squared=True)


def _ensemble(loss: Callable[..., Array]) -> Definition:
    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        logits = jnp.stack([own.logits, *(peer.logits for peer in peers)])
        return loss(own.logits, logits, batch["label"], **scalars)

    return Definition(value, {"temperature": Scalar(2.0, POSITIVE)}, peers="all", squared=True)


def minimum_logit() -> Definition:
    """KDCL: towards the class-wise minimum of all players' logits, times T^2."""
    return _ensemble(losses.minimum_logit_kl)


def best_peer() -> Definition:
    """KDCL's naive variant: towards the player with the least cross-entropy, times T^2."""
    return _ensemble(losses.least_cross_entropy_kl)


def hint(own_layer: str = "pooled", peer_layer: str = "pooled") -> Definition:
    """FitNet's hint: mean squared error between two layers' features of one width."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.feature_mse(own.features[own_layer], peers[0].features[peer_layer])

    return Definition(value, {}, layers=(own_layer, peer_layer))


DEFINITIONS: Mapping[str, Callable[..., Definition]] = {
    "ce": cross_entropy,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "total_variation": total_variation,
    "balanced_kl": balanced_kl,
    "weighted_kl": weighted_kl,
    "minimum_logit": minimum_logit,
    "best_peer": best_peer,
    "hint": hint,
}


def make_term(
    definition: Definition,
    *,
    toward: Sequence[str] = (),
    scalars: Mapping[str, float] | None = None,
    weight: float = 1.0,
    squared: bool | None = None,
    ramp: Ramp | None = None,
) -> Term:
    """Give a definition to a player.

    Args:
      definition: one of this file's functions, called.
      toward: the roles to compare with; the term averages over them.
      scalars: values that differ from the definition's defaults.
      weight: multiplies the mean over the batch.
      squared: multiply by temperature^2; None leaves it to the definition.
      ramp: a factor as a function of the step.

    Raises:
      UserError: a scalar that the loss does not have or outside its domain; peers missing.
    """
    given = dict(scalars or {})
    unknown = sorted(set(given) - set(definition.scalars))
    if unknown:
        known = ", ".join(["weight", *definition.scalars])
        raise UserError(f"no scalar {unknown[0]!r} in this term; it has {known}")
    if definition.peers == "none" and toward:
        raise UserError("this term compares with labels only: remove `toward`")
    if definition.peers != "none" and not toward:
        raise UserError("this term needs `toward`, the role (or roles) to compare with")
    values = {name: scalar.default for name, scalar in definition.scalars.items()} | given
    for name, value in values.items():
        check_domain(name, value, definition.scalars[name])
    use_square = definition.squared if squared is None else squared
    if use_square and "temperature" not in values:
        raise UserError("temperature_squared is set on a term that has no temperature")
    return Term(definition, tuple(toward), {"weight": weight, **values}, use_square, ramp)


def check_domain(name: str, value: float, scalar: Scalar) -> None:
    """Refuse a value outside the open interval where the loss is defined."""
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be a finite number")
    if scalar.domain is not None and not scalar.domain[0] < value < scalar.domain[1]:
        low, high = scalar.domain
        right = f"> {low:g}" if high == math.inf else f"in ({max(low, 0):g}, {high:g})"
        raise UserError(f"{name} is {value:g}; it must be {right}")


def linear_ramp(steps: int) -> Ramp:
    """Rise as min(1, step / steps)."""
    return lambda step: jnp.minimum(1.0, step / steps)


def sigmoid_ramp(steps: int) -> Ramp:
    """Rise as exp(-5 (1 - min(step, steps)/steps)^2), ONE's ramp."""
    return lambda step: jnp.exp(-5.0 * (1.0 - jnp.minimum(step, steps) / steps) ** 2)


def cosine_ramp(steps: int) -> Ramp:
    """Fall from 1 to 0 as a half cosine over `steps`."""
    return lambda step: 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step, steps) / steps))


def piecewise_ramp(boundaries: Sequence[int], factors: Sequence[float]) -> Ramp:
    """Take `factors[i]` between boundaries i - 1 and i: one factor more than boundaries."""
    edges, values = jnp.asarray(boundaries), jnp.asarray(factors, jnp.float32)
    return lambda step: values[jnp.searchsorted(edges, step, side="right")]
