"""What is reported of a set of logits: accuracy and calibration, for all members at once."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import calibration
from kdjax.types import Array


@partial(jax.jit, static_argnames="num_bins")
def brief(logits: Array, labels: Array, *, num_bins: int = 15) -> dict[str, Array]:
    """Accuracy, NLL, ECE and Brier score, [members] each.

    Args:
      logits: [members, examples, classes].
      labels: [examples].
      num_bins: of the expected calibration error.
    """

    def one(z: Array) -> dict[str, Array]:
        return {
            "accuracy": jnp.mean(calibration.accuracy(z, labels)),
            "nll": jnp.mean(calibration.negative_log_likelihood(z, labels)),
            "ece": calibration.expected_calibration_error(z, labels, num_bins=num_bins),
            "brier": jnp.mean(calibration.brier(z, labels)),
        }

    return jax.vmap(one)(logits)


def regression(logits: Any, labels: Any) -> dict[str, np.ndarray]:
    """Mean squared error of scores, {"mse": [members]}.

    Args:
      logits: [members, examples, 1].
      labels: [examples].
    """
    gap = np.asarray(logits, np.float64)[..., 0] - np.asarray(labels, np.float64)
    return {"mse": np.mean(gap**2, axis=-1)}


@partial(jax.jit, static_argnames="num_bins")
def full(
    logits: Array, labels: Array, temperature: Array, *, num_bins: int = 15
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """`brief`, the other calibration errors, and all that changes after temperature scaling.

    Args:
      logits: [members, examples, classes].
      labels: [examples].
      temperature: [members], fitted on a validation split.
      num_bins: of all binned errors.

    Returns:
      Metrics, [members] each, and reliability bins ("before" and "after" scaling), [members,
      bins] each.
    """
    scaled = logits / temperature[:, None, None]
    after = brief(scaled, labels, num_bins=num_bins)

    def one(z: Array) -> dict[str, Array]:
        of = partial(_call, z=z, labels=labels, num_bins=num_bins)
        return {
            "adaptive_ece": of(calibration.adaptive_calibration_error),
            "classwise_ece": of(calibration.classwise_calibration_error),
            "maximum_ce": of(calibration.maximum_calibration_error),
        }

    metrics = {**brief(logits, labels, num_bins=num_bins), **jax.vmap(one)(logits)}
    metrics["temperature"] = temperature
    for name in ("ece", "nll", "brier"):
        metrics[f"{name}_calibrated"] = after[name]

    def bins(z: Array) -> dict[str, Array]:
        return calibration.reliability(z, labels, num_bins=num_bins)._asdict()

    return metrics, {"before": jax.vmap(bins)(logits), "after": jax.vmap(bins)(scaled)}


def _call(function, *, z: Array, labels: Array, num_bins: int) -> Array:
    return function(z, labels, num_bins=num_bins)


@jax.jit
def temperatures(logits: Array, labels: Array) -> Array:
    """Fit a temperature to each member; [members]."""
    return jax.vmap(lambda z: calibration.fit_temperature(z, labels))(logits)


def agreement(logits: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Share of examples on which the two roles name the same class; {} unless there are two."""
    if len(logits) != 2:
        return {}
    first, second = (np.argmax(z, axis=-1) for z in logits.values())
    return {"agreement": np.mean(first == second, axis=-1)}


def pool(bins: Mapping[str, np.ndarray], chosen: list[int]) -> dict[str, list[float]]:
    """Add up the reliability bins of several members, each bin weighted by its count."""
    count = np.asarray(bins["count"])[chosen]
    total = count.sum(axis=0)
    mean = {
        name: (np.asarray(bins[name])[chosen] * count).sum(axis=0) / np.maximum(total, 1)
        for name in ("accuracy", "confidence")
    }
    return {"count": total.tolist(), **{name: value.tolist() for name, value in mean.items()}}
