"""Factors on a term's weight, as functions of the step."""

from collections.abc import Sequence

import jax.numpy as jnp

from kdjax.distill.terms.spec import Ramp


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
