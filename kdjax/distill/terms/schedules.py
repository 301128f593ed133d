"""Schedules of a term's weight and temperature: functions of the step, as in optax."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from kdjax.types import Array

WeightSchedule = optax.Schedule  # step -> factor on the weight


class TemperatureSchedule(NamedTuple):
    """A temperature that changes linearly from its initial value to `to` over `steps`."""

    to: float
    steps: int

    def at(self, temperature: Array | float, step: Array | int) -> Array:
        """Return the temperature of a step: `temperature` at 0, `to` from `steps` on."""
        return jnp.asarray(optax.linear_schedule(temperature, self.to, self.steps)(step))


def sigmoid_schedule(steps: int) -> WeightSchedule:
    """Rise as exp(-5 (1 - min(step, steps)/steps)^2), ONE's ramp, which optax does not have."""

    def schedule(step: ArrayLike) -> Array:
        return jnp.exp(-5.0 * (1.0 - jnp.minimum(step, steps) / steps) ** 2)

    return schedule


class StepWindow(NamedTuple):
    """A factor on a weight that is 0 outside the steps from_step <= step < until_step.

    `ramp` is the factor inside, a function of step - from_step; None is 1.
    """

    from_step: int
    until_step: int | None = None
    ramp: WeightSchedule | None = None

    def is_open(self, step: ArrayLike) -> Array:
        """Return whether the step lies inside."""
        until = jnp.inf if self.until_step is None else self.until_step
        return (jnp.asarray(step) >= self.from_step) & (jnp.asarray(step) < until)

    def __call__(self, step: ArrayLike) -> Array:
        """Return the factor of a step."""
        factor = 1.0 if self.ramp is None else self.ramp(jnp.asarray(step) - self.from_step)
        return jnp.where(self.is_open(step), factor, 0.0)
