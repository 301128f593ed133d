"""Metrics of predictions: one task for each kind of data."""

from kdjax.evaluation import (
    classification,
    detection,
    language_model,
    regression,
    representation,
    text,
)
from kdjax.evaluation.task import EvalSpec, Predictions, Task

__all__ = ["TASKS", "EvalSpec", "Predictions", "Task"]

TASKS: dict[str, Task] = {
    "classification": classification.TASK,
    "regression": regression.TASK,
    "text_classification": text.CLASSIFICATION,
    "text_regression": text.REGRESSION,
    "detection": detection.TASK,
    "representation": representation.TASK,
    "language_model": language_model.TASK,
}
