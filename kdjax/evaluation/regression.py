"""Scores instead of classes: the mean squared error; nothing is fitted."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predictions, Scores, Task, by_role


def mean_squared_error(scores: Any, labels: Any) -> dict[str, np.ndarray]:
    """Return {"mse": [members]}.

    Args:
      scores: [members, examples, 1].
      labels: [examples].
    """
    gap = np.asarray(scores, np.float64)[..., 0] - np.asarray(labels, np.float64)
    return {"mse": np.mean(gap**2, axis=-1)}


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the mean squared error of each role."""

    def metrics(role: str, scores: np.ndarray) -> Mapping[str, np.ndarray]:
        return mean_squared_error(scores, predictions.labels)

    return by_role(predictions, metrics)


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return the mean squared error of each role; scores have no reliability bins."""
    return validation_metrics(evaluation, predictions, fitted), {}


TASK = Task(
    metrics=lambda spec: {"mse": False},
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
)
