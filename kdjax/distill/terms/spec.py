"""Terms: a loss, the outputs that it reads, its scalars and its weight.

A `TermSpec` connects a loss to the outputs of a student (the player that minimises it) and its
teachers. `make_term` adds the settings of a config: the teachers' roles, weight, scalars and
schedules. `methods/` averages, weights and multiplies by T^2.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from kdjax.distill.terms.schedules import TemperatureSchedule, WeightSchedule
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Outputs, Scalars

Teachers = Sequence[Outputs]
LossValue = Array | tuple[Array, Mapping[str, Array]]  # values, or (values, scalars to log)
LossFn = Callable[[Outputs, Teachers, Batch, Scalars], LossValue]

POSITIVE = (0.0, math.inf)  # open intervals; the last two include 0
UNIT = (0.0, 1.0)
_BELOW_ZERO = -sys.float_info.min  # 0 in float32
NOT_NEGATIVE = (_BELOW_ZERO, math.inf)
FRACTION = (_BELOW_ZERO, 1.0)

VIEW_LOGITS = "view_logits"  # the feature that holds the logits of an image's second view


def parameter_name(path: str) -> str:
    """Return the name of the feature that holds a parameter."""
    return f"params/{path}"


class Scalar(NamedTuple):
    """A number that a config or a sweep may set; `domain` is an open interval, or None."""

    default: float
    domain: tuple[float, float] | None = None


class TermSpec(NamedTuple):
    """A loss and the outputs that it reads.

    `loss_fn(student, teachers, batch, scalars) -> [batch]`, or [] if `coupled` (the loss mixes
    examples and gets the batch of all devices; it may return ([], {name: scalar}), with scalars to
    log). `teachers`: the players it compares with: "none", "each" (one at a time, averaged) or
    "all" (at once). `scale_by_temperature_squared`: the gradient of the loss falls as 1/T^2, so the
    term multiplies by T^2 by default. `layers`: pairs (student, teacher) of features that it reads;
    `match`: a pair must have the same "shape", the same shape except channels ("space"), or any
    shapes ("free"). `own_logits`: a feature of the student that replaces its logits.
    `own_parameters` and `parameters`: paths of the student's and the teachers' parameters that it
    reads as features under `parameter_name(path)`. `sums`: the loss is [], the sum over the rows of
    this device times `batch["mask"]`; it is divided by the sum of the mask over all devices.
    """

    loss_fn: LossFn
    scalars: Mapping[str, Scalar]
    teachers: Literal["none", "each", "all"] = "each"
    scale_by_temperature_squared: bool = False
    coupled: bool = False
    layers: tuple[tuple[str, str], ...] = ()
    match: Literal["shape", "space", "free"] = "shape"
    class_means: str | None = None  # the teacher's layer whose class means it needs
    own_logits: str = ""
    own_parameters: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    sums: bool = False
    rows: str = "row"  # the kind of rows ("row", "anchor", "sequence") with its labels and mask

    @property
    def own_layers(self) -> tuple[str, ...]:
        """Features of the student that the loss reads."""
        own_logits = (self.own_logits,) if self.own_logits else ()
        return (*(own for own, _ in self.layers), *own_logits)

    @property
    def peer_layers(self) -> tuple[str, ...]:
        """Features of a teacher that the loss reads, except class means."""
        return tuple(peer for _, peer in self.layers)


class Term(NamedTuple):
    """A term of one player; `scalars` holds the initial values, "weight" included."""

    spec: TermSpec
    toward: tuple[str, ...]
    scalars: Mapping[str, float]
    scale_by_temperature_squared: bool
    weight_schedule: WeightSchedule | None = None
    temperature_schedule: TemperatureSchedule | None = None


def make_term(
    spec: TermSpec,
    *,
    toward: Sequence[str] = (),
    scalars: Mapping[str, float] | None = None,
    scale_by_temperature_squared: bool | None = None,
    weight_schedule: WeightSchedule | None = None,
    temperature_schedule: TemperatureSchedule | None = None,
) -> Term:
    """Make a term of a player.

    Args:
      spec: the result of a function of `TERM_SPECS`.
      toward: the teachers' roles; the term averages over them.
      scalars: values that differ from the defaults; "weight" (1) multiplies the batch's mean.
      scale_by_temperature_squared: None takes the spec's default.
      weight_schedule: a factor on the weight as a function of the step.
      temperature_schedule: changes the temperature, and T^2 with it.

    Raises:
      UserError: a scalar that the loss does not have or outside its domain; teachers missing; a
        temperature schedule of no steps, or of a term without a temperature.
    """
    known = {"weight": Scalar(1.0), **spec.scalars}
    values = {name: scalar.default for name, scalar in known.items()} | dict(scalars or {})
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"this term has no scalar {unknown[0]!r}; it has {', '.join(known)}")
    if spec.teachers == "none" and toward:
        raise UserError("this term compares with labels only: remove `toward`")
    if spec.teachers != "none" and not toward:
        raise UserError("this term needs `toward`, the role (or roles) to compare with")
    for name, scalar in spec.scalars.items():
        check_domain(name, values[name], scalar)
    if scale_by_temperature_squared is None:
        scale_by_temperature_squared = spec.scale_by_temperature_squared
    if scale_by_temperature_squared and "temperature" not in values:
        raise UserError("temperature_squared is set on a term that has no temperature")
    if temperature_schedule is not None:
        _check_temperature_schedule(temperature_schedule, spec)
    return Term(
        spec,
        tuple(toward),
        values,
        scale_by_temperature_squared,
        weight_schedule,
        temperature_schedule,
    )


def _check_temperature_schedule(schedule: TemperatureSchedule, spec: TermSpec) -> None:
    if "temperature" not in spec.scalars:
        raise UserError("anneal is set on a term that has no temperature")
    if schedule.steps < 1:
        raise UserError(f"anneal.steps is {schedule.steps}; it must be >= 1")
    check_domain("anneal.to", schedule.to, spec.scalars["temperature"])


def check_domain(name: str, value: float, scalar: Scalar) -> None:
    """Refuse a value outside the open interval where the loss is defined."""
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be a finite number")
    if scalar.domain is not None and not scalar.domain[0] < value < scalar.domain[1]:
        raise UserError(f"{name} is {value:g}; it must be {domain_text(scalar)}")


def paired_layers(own: Sequence[str], peer: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pair the layers of two players.

    Raises:
      UserError: lists of unequal length.
    """
    if len(own) != len(peer):
        raise UserError(
            f"own_layers has {len(own)} names and peer_layers {len(peer)}; the numbers must be "
            "equal"
        )
    return tuple(zip(own, peer, strict=True))


def domain_text(scalar: Scalar) -> str:
    """Describe the domain of a scalar; a domain that begins just below 0 is written >= 0."""
    if scalar.domain is None:
        return ""
    low, high = scalar.domain
    upper = "" if high == math.inf else f" and < {high:g}"
    return f"{'>=' if low < 0 else '>'} {max(low, 0):g}{upper}"
