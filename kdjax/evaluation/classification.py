"""Classification: accuracy and calibration of logits, for all members of a sweep at once."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from kdjax import calibration
from kdjax.evaluation.task import (
    Bins,
    EvalSpec,
    Fitted,
    Predict,
    Predictions,
    Scores,
    Task,
    by_role,
)
from kdjax.types import Array

METRICS = {  # whether higher is better
    "accuracy": True,
    "agreement": True,
    "nll": False,
    "brier": False,
    "ece": False,
    "adaptive_ece": False,
    "classwise_ece": False,
    "maximum_ce": False,
    "nll_calibrated": False,
    "brier_calibrated": False,
    "ece_calibrated": False,
}


@partial(jax.jit, static_argnames="num_bins")
def basic_metrics(logits: Array, labels: Array, *, num_bins: int = 15) -> dict[str, Array]:
    """Return accuracy, NLL, ECE, Brier score and entropy of the predictions, [members] each.

    All are NaN for a member with a NaN among its logits.

    Args:
      logits: [members, examples, classes].
      labels: [examples].
      num_bins: number of bins of the expected calibration error.
    """

    def one(z: Array) -> dict[str, Array]:
        accuracy = jnp.mean(calibration.accuracy(z, labels))
        return {
            "accuracy": jnp.where(jnp.isnan(z).any(), jnp.nan, accuracy),
            "nll": jnp.mean(calibration.negative_log_likelihood(z, labels)),
            "ece": calibration.expected_calibration_error(z, labels, num_bins=num_bins),
            "brier": jnp.mean(calibration.brier(z, labels)),
            "entropy": jnp.mean(jnp.sum(entr(jax.nn.softmax(z, axis=-1)), axis=-1)),
        }

    return jax.vmap(one)(logits)


@partial(jax.jit, static_argnames="num_bins")
def all_metrics(
    logits: Array, labels: Array, temperature: Array, *, num_bins: int = 15
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Return the basic metrics, other calibration errors, and metrics after temperature scaling.

    Args:
      logits: [members, examples, classes].
      labels: [examples].
      temperature: [members], fitted on a validation split.
      num_bins: number of bins of all binned errors.

    Returns:
      Metrics, [members] each, and reliability bins ("before" and "after" scaling), [members,
      bins] each.
    """
    scaled = logits / temperature[:, None, None]
    after = basic_metrics(scaled, labels, num_bins=num_bins)

    def one(z: Array) -> dict[str, Array]:
        errors = {
            "adaptive_ece": calibration.adaptive_calibration_error,
            "classwise_ece": calibration.classwise_calibration_error,
            "maximum_ce": calibration.maximum_calibration_error,
        }
        return {name: error(z, labels, num_bins=num_bins) for name, error in errors.items()}

    metrics = {**basic_metrics(logits, labels, num_bins=num_bins), **jax.vmap(one)(logits)}
    metrics["temperature"] = temperature
    for name in ("ece", "nll", "brier"):
        metrics[f"{name}_calibrated"] = after[name]

    def bins(z: Array) -> dict[str, Array]:
        return calibration.reliability(z, labels, num_bins=num_bins)._asdict()

    return metrics, {"before": jax.vmap(bins)(logits), "after": jax.vmap(bins)(scaled)}


@jax.jit
def temperatures(logits: Array, labels: Array) -> Array:
    """Fit a temperature to each member; [members]."""
    return jax.vmap(lambda z: calibration.fit_temperature(z, labels))(logits)


def agreement(logits: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the share of examples for which two roles predict the same class; {} unless two.

    It is NaN for a member with a NaN among its logits.
    """
    if len(logits) != 2:
        return {}
    first, second = (np.argmax(z, axis=-1) for z in logits.values())
    invalid = np.any([np.isnan(z).any(axis=(-2, -1)) for z in logits.values()], axis=0)
    return {"agreement": np.where(invalid, np.nan, np.mean(first == second, axis=-1))}


def pool_bins(bins: Mapping[str, Any], members: list[int]) -> dict[str, list[float]]:
    """Combine the reliability bins of several members, weighted by the counts.

    Members with NaN among their confidences are left out.
    """
    members = [row for row in members if np.isfinite(bins["confidence"][row]).all()]
    count = np.asarray(bins["count"])[members]
    total = count.sum(axis=0)
    mean = {
        name: (np.asarray(bins[name])[members] * count).sum(axis=0) / np.maximum(total, 1)
        for name in ("accuracy", "confidence")
    }
    return {"count": total.tolist(), **{name: value.tolist() for name, value in mean.items()}}


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the basic metrics of each role, and the agreement of two roles."""

    def metrics(role: str, logits: np.ndarray) -> Mapping[str, np.ndarray]:
        return jax.device_get(
            basic_metrics(logits, predictions.labels, num_bins=evaluation.num_bins)
        )

    return {**agreement(predictions.outputs), **by_role(predictions, metrics)}


def fit_temperatures(predict: Predict, final: bool) -> Fitted:
    """Fit a temperature to each role and member on the validation split, if `final`."""
    if not final:
        return {}
    predictions = predict("validation")
    return {r: temperatures(z, predictions.labels) for r, z in predictions.outputs.items()}


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return all metrics of each role, also after temperature scaling, and reliability bins."""
    bins: Bins = {}

    def metrics(role: str, logits: np.ndarray) -> Mapping[str, np.ndarray]:
        values, role_bins = jax.device_get(
            all_metrics(logits, predictions.labels, fitted[role], num_bins=evaluation.num_bins)
        )
        bins[role] = jax.tree.map(lambda x: np.asarray(x).tolist(), role_bins)
        return values

    return {**agreement(predictions.outputs), **by_role(predictions, metrics)}, bins


TASK = Task(
    metrics=lambda spec: METRICS,
    pair_metrics=("agreement",),
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
    fit=fit_temperatures,
    has_bounds=True,
    takes_corruptions=True,
)
