"""What GLUE and SuperGLUE report of a task, on the host: numpy, scikit-learn, scipy."""

from functools import partial
from typing import Any, cast

import numpy as np
from scipy import stats
from sklearn import metrics

from kdjax.data.text.tasks import Task, lookup

__all__ = ["task_metrics"]

# Their stubs are wrong about zero_division and about what correlations return.
_f1: Any = partial(metrics.f1_score, zero_division=cast(Any, 0.0))
_CORRELATION: dict[str, Any] = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def task_metrics(
    task: str, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return the metrics of a task, the one that its benchmark prints first.

    accuracy; f1 (of class 1); macro_f1 (mean over the classes that occur); matthews; pearson and
    spearman (of the score); exact_match (share of the groups without a mistake). In [0, 1], the
    correlations in [-1, 1]. What is 0/0, as for one predicted class, is 0; all are NaN where a
    logit is.

    Args:
        task: a name of `tasks.TASKS`.
        logits: [n, classes], or [n] or [n, 1] scores of a regression.
        labels: [n] classes or scores.
        groups: [n] of MultiRC, equal for answers to one question; from `data.TextSet.groups`.

    Raises:
        UserError: on an unknown task.
        ValueError: on shapes that do not fit, or MultiRC without groups.

    >>> task_metrics("glue/sst2", np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    {'accuracy': 0.5}
    """
    found = lookup(task)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    _check(found, logits, labels, groups)
    if np.isnan(logits).any():
        return dict.fromkeys(found.metrics, float("nan"))
    guess = logits.reshape(-1) if found.bounds else logits.argmax(-1)
    return {name: _metric(name, guess, labels, groups) for name in found.metrics}


def _check(task: Task, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> None:
    width = len(task.class_names)
    shapes = [(len(labels), width)] + ([(len(labels),)] if task.bounds else [])
    if labels.ndim != 1 or len(labels) == 0 or logits.shape not in shapes:
        raise ValueError(
            f"{task.name}: logits {logits.shape} and labels {labels.shape}; "
            f"give [n, {width}] and [n], n >= 1"
        )
    if "exact_match" in task.metrics and (groups is None or np.shape(groups) != labels.shape):
        shape = None if groups is None else np.shape(groups)
        raise ValueError(f"{task.name}: groups {shape} and labels {labels.shape} must be alike")


def _metric(name: str, guess: np.ndarray, label: np.ndarray, groups: Any) -> float:
    value: Any
    match name:
        case "accuracy":
            value = np.mean(guess == label)
        case "f1":
            value = _f1(label == 1, guess == 1)
        case "macro_f1":
            value = _f1(label, guess, average="macro")
        case "matthews":
            value = metrics.matthews_corrcoef(label, guess)
        case "pearson" | "spearman":
            if np.ptp(guess) == 0 or np.ptp(label) == 0:
                return 0.0  # scipy warns and says NaN
            value = _CORRELATION[name](guess, label).statistic
        case "exact_match":
            which = np.unique(groups, return_inverse=True)[1]
            wrong = np.bincount(which, weights=guess != label)
            value = np.mean(wrong == 0)
        case _:
            raise ValueError(f"unknown metric {name!r}")
    return float(value)
