"""Text: classification and regression with the metrics of GLUE and SuperGLUE."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.data import TextSet, check_tokenizer, save_tokenizer, task_metric_names
from kdjax.data.text.tasks import Task as TextTask
from kdjax.data.text.tasks import lookup
from kdjax.errors import UserError
from kdjax.evaluation import classification, regression
from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predictions, Scores, Task, by_role
from kdjax.types import Spec


def task_metrics(
    task: str, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return the metrics of a task, the most important first.

    The metrics are accuracy; f1 (of class 1); macro_f1 (mean over the classes that occur);
    matthews; pearson and spearman (of the score); exact_match (fraction of the groups without a
    mistake). They lie in [0, 1], correlations in [-1, 1]. A metric that is 0/0, as for a single
    predicted class, is 0; all are NaN if a logit is NaN.

    Args:
        task: a name of `tasks.TASKS`.
        logits: [n, classes], or [n] or [n, 1] scores of a regression.
        labels: [n] classes or scores.
        groups: [n], equal for answers to one question; only for MultiRC (`data.TextSet.groups`).

    Raises:
        UserError: unknown task.
        ValueError: shapes that do not fit, or MultiRC without groups.

    >>> task_metrics("glue/sst2", np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    {'accuracy': 0.5}
    """
    spec = lookup(task)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    _check(spec, logits, labels, groups)
    if np.isnan(logits).any():
        return dict.fromkeys(spec.metrics, float("nan"))
    prediction = logits.reshape(-1) if spec.bounds else logits.argmax(-1)
    return {name: _metric(name, prediction, labels, groups) for name in spec.metrics}


def _check(
    task: TextTask, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> None:
    width = len(task.class_names) or logits.shape[-1]  # a table has classes of its own
    shapes = [(len(labels), width)] + ([(len(labels),)] if task.bounds else [])
    if labels.ndim != 1 or len(labels) == 0 or logits.shape not in shapes:
        raise ValueError(
            f"{task.name}: logits {logits.shape} and labels {labels.shape}; "
            f"give [n, {width}] and [n], n >= 1"
        )
    if "exact_match" in task.metrics and (groups is None or np.shape(groups) != labels.shape):
        shape = None if groups is None else np.shape(groups)
        raise ValueError(
            f"{task.name}: groups {shape} and labels {labels.shape} must have the same shape"
        )


def _metric(name: str, prediction: np.ndarray, label: np.ndarray, groups: Any) -> float:
    from scipy import stats  # takes a second to import; only text needs it
    from sklearn import metrics

    # the type stubs of zero_division and of the correlations' results are wrong
    f1: Any = metrics.f1_score
    value: Any
    match name:
        case "accuracy":
            value = np.mean(prediction == label)
        case "f1":
            value = f1(label == 1, prediction == 1, zero_division=0.0)
        case "macro_f1":
            value = f1(label, prediction, average="macro", zero_division=0.0)
        case "matthews":
            value = metrics.matthews_corrcoef(label, prediction)
        case "pearson" | "spearman":
            correlation: Any = stats.pearsonr if name == "pearson" else stats.spearmanr
            if np.ptp(prediction) == 0 or np.ptp(label) == 0:
                return 0.0  # scipy warns and returns NaN
            value = correlation(prediction, label).statistic
        case "exact_match":
            group = np.unique(groups, return_inverse=True)[1]
            mistakes = np.bincount(group, weights=prediction != label)
            value = np.mean(mistakes == 0)
        case _:
            raise ValueError(f"unknown metric {name!r}")
    return float(value)


def with_benchmark(task: Task) -> Task:
    """Return a task with the benchmark's metrics added to its own."""

    def metrics(spec: Spec) -> dict[str, bool]:
        return {**task.metrics(spec), **dict.fromkeys(task_metric_names(spec.task), True)}

    def validation_metrics(
        evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
    ) -> Scores:
        own = task.validation_metrics(evaluation, predictions, fitted)
        return {**own, **_benchmark_metrics(evaluation, predictions)}

    def test_metrics(
        evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
    ) -> tuple[Scores, Bins]:
        own, bins = task.test_metrics(evaluation, predictions, fitted)
        return {**own, **_benchmark_metrics(evaluation, predictions)}, bins

    return task._replace(
        metrics=metrics,
        validation_metrics=validation_metrics,
        test_metrics=test_metrics,
        describe_network=describe_network,
        save_files=lambda dataset, folder: save_tokenizer(dataset.tokenizer, folder),
        check_files=lambda dataset, folder: check_tokenizer(dataset.tokenizer, folder),
        unit="sequences",
        has_bounds=False,
    )


def _benchmark_metrics(evaluation: EvalSpec, predictions: Predictions) -> Scores:
    dataset: TextSet = evaluation.dataset
    groups = dataset.groups[predictions.split]

    def metrics(role: str, logits: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [
            task_metrics(evaluation.spec.task, np.asarray(z), predictions.labels, groups)
            for z in logits
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    return by_role(predictions, metrics)


def describe_network(network: Mapping[str, Any], spec: Spec) -> tuple[dict[str, Any], Spec]:
    """Fill in the size of the vocabulary; a larger one is allowed.

    Raises:
      UserError: a size below the tokenizer's.
    """
    options = dict(network)
    size = options.setdefault("vocab_size", spec.vocab_size)
    if size < spec.vocab_size:
        raise UserError(
            f"vocab_size is {size}, but the tokenizer has {spec.vocab_size} words; use that or more"
        )
    return options, spec


CLASSIFICATION = with_benchmark(classification.TASK)
REGRESSION = with_benchmark(regression.TASK)
