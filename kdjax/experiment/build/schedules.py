"""Optax schedules from a config: factors on learning rates and on terms' weights."""

import warnings
from collections.abc import Sequence

import optax

from kdjax.distill import terms
from kdjax.errors import UserError
from kdjax.experiment.config.schema import Config, Schedule, TemperatureAnneal, Term, WeightRamp

FACTOR = Schedule().factor  # the default


def learning_rate_schedule(
    name: str,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    factor: float = FACTOR,
) -> optax.Schedule:
    """Return a schedule with peak 1, a factor on the learning rate.

    Args:
      name: "constant", "step" (times `factor` at each of `boundaries`), "cosine" or "linear"
        (both fall to 0 at `num_steps`).
      num_steps: the length of the run.
      warmup_steps: number of steps of a linear rise from 0, before the schedule.
      boundaries: the steps of "step".
      factor: the factor of "step".

    Raises:
      UserError: an unknown name, a warm-up outside [0, num_steps], boundaries that are not
        increasing whole numbers >= 0, and boundaries without "step" or the reverse.
    """
    if warmup_steps != int(warmup_steps) or not 0 <= warmup_steps <= num_steps:
        raise UserError(
            f"schedule.warmup_steps is {warmup_steps}; it must be a whole number from 0 to "
            f"num_steps, {num_steps}"
        )
    _check_boundaries("schedule", boundaries)
    if (name == "step") != bool(len(boundaries)):
        raise UserError(
            f"schedule.name is {name!r} and schedule.boundaries {tuple(boundaries)}; 'step' needs "
            "boundaries, and no other schedule has them"
        )
    if factor != FACTOR and name != "step":
        raise UserError(f"schedule.factor is {factor}, which only 'step' reads; remove it")
    if boundaries and boundaries[-1] >= num_steps:
        warnings.warn(
            f"schedule.boundaries is {tuple(boundaries)}, but the run has {num_steps} steps; later "
            "ones have no effect",
            stacklevel=2,
        )
    rest = max(num_steps - warmup_steps, 1)
    if name == "constant":
        main = optax.constant_schedule(1.0)
    elif name == "step":
        shifted = {int(b) - warmup_steps: factor for b in boundaries}
        main = optax.piecewise_constant_schedule(1.0, shifted)
    elif name == "cosine":
        main = optax.cosine_decay_schedule(1.0, rest)
    elif name == "linear":
        main = optax.linear_schedule(1.0, 0.0, rest)
    else:
        raise UserError(f"no schedule {name!r}; there are constant, step, cosine, linear")
    if not warmup_steps:
        return main
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return optax.join_schedules([rise, main], [warmup_steps])


def weight_schedule(where: str, term: Term) -> terms.WeightSchedule | None:
    """Return the schedule of a term's weight from its ramp and its steps; None if constant.

    Raises:
      UserError: invalid steps, boundaries or factors.
    """
    ramp = _ramp(where, term.ramp)
    if not term.from_step and term.until_step is None:
        return ramp
    if term.until_step is not None and term.until_step <= term.from_step:
        raise UserError(
            f"{where}.until_step is {term.until_step}; it must be > from_step = {term.from_step}"
        )
    return terms.StepWindow(term.from_step, term.until_step, ramp)


def warn_of_late_terms(config: Config) -> None:
    """Warn of terms whose first step lies behind the last one of the run."""
    late = [
        f"roles.{role}.terms.{name}.from_step is {term.from_step}"
        for role, table in config.roles.items()
        for name, term in table.terms.items()
        if term.from_step >= config.num_steps
    ]
    if late:
        warnings.warn(
            f"{', '.join(late)}, but the run has {config.num_steps} steps: no effect", stacklevel=2
        )


def _ramp(where: str, ramp: WeightRamp) -> optax.Schedule | None:
    """Return the schedule of a term's `ramp`; None if it has no name.

    Args:
      where: the term's key, for errors.
      ramp: the table; "linear" and "sigmoid" rise to 1 over `steps`, "cosine" falls from 1 to 0;
        "piecewise" is `factors[i]` between boundaries i - 1 and i.

    Raises:
      UserError: invalid steps, boundaries or factors.
    """
    name, steps = ramp.name, ramp.steps
    if name is None:
        if steps or ramp.boundaries or ramp.factors:
            raise UserError(f"{where}: ramp has no name; set ramp.name, or remove its other keys")
        return None
    if name == "piecewise":
        return _piecewise(where, ramp.boundaries, ramp.factors)
    if steps < 1:
        raise UserError(f"{where}: ramp.steps is {steps}; it must be >= 1")
    if name == "linear":
        return optax.linear_schedule(0.0, 1.0, steps)
    if name == "cosine":
        return optax.cosine_decay_schedule(1.0, steps)
    return terms.sigmoid_schedule(steps)


def _piecewise(
    where: str, boundaries: tuple[int, ...], factors: tuple[float, ...]
) -> optax.Schedule:
    _check_boundaries(f"{where}: ramp", boundaries)
    if len(factors) != len(boundaries) + 1:
        raise UserError(
            f"{where}: ramp.boundaries is {boundaries} and ramp.factors {factors}; there must be "
            "one factor more than boundaries"
        )
    return optax.join_schedules([optax.constant_schedule(f) for f in factors], boundaries)


def _check_boundaries(where: str, boundaries: Sequence[int]) -> None:
    valid = all(step == int(step) and step >= 0 for step in boundaries)
    if not valid or list(boundaries) != sorted(set(boundaries)):
        raise UserError(
            f"{where}.boundaries is {tuple(boundaries)}; it must be increasing whole numbers >= 0"
        )


def temperature_schedule(anneal: TemperatureAnneal) -> terms.TemperatureSchedule | None:
    """Return the schedule of a term's `anneal`; None if it has none.

    Raises:
      UserError: steps without a temperature.
    """
    if anneal.to is None:
        if anneal.steps:
            raise UserError(f"anneal.steps is {anneal.steps}, but anneal.to is not set; set it")
        return None
    return terms.TemperatureSchedule(float(anneal.to), anneal.steps)
