"""Regression: the mean squared error; nothing is fitted."""

from collections.abc import Mapping

import numpy as np

from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predictions, Scores, Task, by_role


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the mean squared error of each role."""

    def metrics(role: str, scores: np.ndarray) -> Mapping[str, np.ndarray]:
        gap = np.asarray(scores, np.float64)[..., 0] - np.asarray(predictions.labels, np.float64)
        return {"mse": np.mean(gap**2, axis=-1)}

    return by_role(predictions, metrics)


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return the mean squared error of each role; regressions have no reliability bins."""
    return validation_metrics(evaluation, predictions, fitted), {}


TASK = Task(
    metrics=lambda spec: {"mse": False},
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
)
