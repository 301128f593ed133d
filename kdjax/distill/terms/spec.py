"""What a term is: a definition as one player uses it.

A *definition* couples a loss to the outputs of a player and its peers. `make_term` adds what a
config decides: towards whom, the weight, the scalars, a ramp. All averaging, weighting and
multiplication by T^2 happens in `methods/`, with the numbers that stand here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp

from kdjax.types import Array, Batch, Outputs, Scalars, UserError

Found = Array | tuple[Array, Mapping[str, Array]]  # values; and scalars to be logged
Value = Callable[[Outputs, Sequence[Outputs], Batch, Scalars], Found]
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
    it then sees the batch of all devices, and may return ([], {name: scalar}): what is logged
    beside it). `peers`: how many other players it compares with:
    "none", "each" (one at a time, averaged) or "all" (at once). `squared`: the gradient of the
    loss falls as 1/T^2, so that the term multiplies by T^2 by default. `layers`: pairs (own,
    peer) of features that it looks at; `match`: such a pair has one "shape", the same shape but
    for channels ("space"), or nothing in common ("free").
    """

    value: Value
    scalars: Mapping[str, Scalar]
    peers: Literal["none", "each", "all"] = "each"
    squared: bool = False
    coupled: bool = False
    layers: tuple[tuple[str, str], ...] = ()
    match: Literal["shape", "space", "free"] = "shape"
    class_means: str | None = None  # the peer's layer whose class means it needs
    rows: str = "row"  # whose labels and mask it takes, where the outputs bring several


class Anneal(NamedTuple):
    """A temperature on its way: from its own value to `to` in a straight line over `steps`."""

    to: float
    steps: int

    def at(self, temperature: Array | float, step: Array | int) -> Array:
        """The temperature of a step: the given one at 0, `to` from `steps` on."""
        return temperature + (self.to - temperature) * jnp.minimum(1.0, step / self.steps)


class Term(NamedTuple):
    """A definition as one player uses it; `scalars` holds the defaults, "weight" included."""

    definition: Definition
    toward: tuple[str, ...]
    scalars: Mapping[str, float]
    squared: bool
    ramp: Ramp | None
    anneal: Anneal | None = None


def make_term(
    definition: Definition,
    *,
    toward: Sequence[str] = (),
    scalars: Mapping[str, float] | None = None,
    weight: float = 1.0,
    squared: bool | None = None,
    ramp: Ramp | None = None,
    anneal: Anneal | None = None,
) -> Term:
    """Give a definition to a player.

    Args:
      definition: one of this file's functions, called.
      toward: the roles to compare with; the term averages over them.
      scalars: values that differ from the definition's defaults.
      weight: multiplies the mean over the batch.
      squared: multiply by temperature^2; None leaves it to the definition.
      ramp: a factor as a function of the step.
      anneal: where the temperature goes; T^2 goes with it.

    Raises:
      UserError: a scalar that the loss does not have or outside its domain; peers missing; an
        anneal of no steps or of a term without a temperature.
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
    if anneal is not None:
        if "temperature" not in values:
            raise UserError("anneal is set on a term that has no temperature")
        if anneal.steps < 1:
            raise UserError(f"anneal.steps is {anneal.steps}; it must be >= 1")
        check_domain("anneal.to", anneal.to, definition.scalars["temperature"])
    return Term(definition, tuple(toward), {"weight": weight, **values}, use_square, ramp, anneal)


def check_domain(name: str, value: float, scalar: Scalar) -> None:
    """Refuse a value outside the open interval where the loss is defined."""
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be a finite number")
    if scalar.domain is not None and not scalar.domain[0] < value < scalar.domain[1]:
        low, high = scalar.domain
        right = (
            f"> {low:g}"
            if high == math.inf
            else f"in {'[' if low < 0 else '('}{max(low, 0):g}, {high:g})"
        )
        raise UserError(f"{name} is {value:g}; it must be {right}")
