"""What a run reports of its logits: by the kind of its data, classes or scores, images or text."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kdjax.evaluation import classification, representation
from kdjax.evaluation.task import EvalSpec, Predictions, Scores


def brief(evaluation: EvalSpec, answers: Predictions, fitted: Mapping[str, Any]) -> Scores:
    """What is worth knowing during a run, "<role>/<metric>" and what two roles have in common.

    Args:
      evaluation: for the kind of data.
      answers: on the split.
      fitted: probes of representations, from `fit`.
    """
    if evaluation.spec.latents:
        return {**representation.score(fitted, answers.outputs, answers.labels), **answers.critics}
    bins = evaluation.num_bins
    if evaluation.pictures is not None:
        return _of_boxes(evaluation, answers)[0]
    found: Scores = {}
    if not is_regression(evaluation):
        found |= classification.agreement(answers.outputs)
    for role, z in answers.outputs.items():
        if is_regression(evaluation):
            values = classification.regression(z, answers.labels)
        else:
            values = jax.device_get(classification.brief(z, answers.labels, num_bins=bins))
        values = {**values, **_of_task(evaluation, answers, z)}
        found |= {f"{role}/{name}": value for name, value in values.items()}
    return found


def fit(
    evaluation: EvalSpec, answer: Callable[[str], Predictions], *, last: bool
) -> dict[str, Any]:
    """What must be fitted before anything is scored, by role.

    Probes of representations, on "train"; else, at the end of a run, a temperature for each role
    and member, on "validation" (none for scores and for boxes).

    Args:
      evaluation: for the kind of data.
      answer: the outputs of all roles on a split.
      last: whether the final scores follow.
    """
    if evaluation.spec.latents:
        answers = answer("train")
        return representation.fit(answers.outputs, answers.labels)
    if is_regression(evaluation) or evaluation.pictures is not None or not last:
        return {}
    answers = answer("validation")
    return {r: classification.temperatures(z, answers.labels) for r, z in answers.outputs.items()}


def full(
    evaluation: EvalSpec, answers: Predictions, fitted: Mapping[str, Any]
) -> tuple[Scores, dict[str, Any]]:
    """Every metric of a split, and the reliability bins by role (none for scores).

    Args:
      evaluation: for the kind of data and the number of bins.
      answers: on the split.
      fitted: from `fit`, on another split.
    """
    if evaluation.pictures is not None:
        return _of_boxes(evaluation, answers)
    if is_regression(evaluation) or evaluation.spec.latents:
        return brief(evaluation, answers, fitted), {}
    found, bins = classification.agreement(answers.outputs), {}
    for role, z in answers.outputs.items():
        values, binned = jax.device_get(
            classification.full(z, answers.labels, fitted[role], num_bins=evaluation.num_bins)
        )
        values = {**values, **_of_task(evaluation, answers, z)}
        found |= {f"{role}/{name}": value for name, value in values.items()}
        bins[role] = jax.tree.map(lambda x: np.asarray(x).tolist(), binned)
    return found, bins


def is_regression(evaluation: EvalSpec) -> bool:
    """Whether labels are scores."""
    return bool(evaluation.spec.task) and evaluation.spec.num_classes == 1


def _of_boxes(evaluation: EvalSpec, answers: Predictions) -> tuple[Scores, dict[str, Any]]:
    """Average precisions, [members] each, and bins of the scores (nothing is fitted to them)."""
    from kdjax.evaluation.detection import detection_metrics  # needs an extra

    assert evaluation.pictures is not None
    photos, spec = evaluation.pictures.photos[answers.split], evaluation.spec
    found, bins = {}, {}
    for role, packed in answers.outputs.items():
        rows = [
            detection_metrics(
                np.asarray(one).reshape(len(photos), -1, 7),
                photos,
                classes=spec.num_classes - 1,
                side=spec.shape[0],
                num_bins=evaluation.num_bins,
            )
            for one in packed
        ]
        for name in rows[0][0]:
            found[f"{role}/{name}"] = np.array([values[name] for values, _ in rows])
        of = {name: [b[name].tolist() for _, b in rows] for name in rows[0][1]}
        bins[role] = {"before": of}
    return found, bins


def _of_task(evaluation: EvalSpec, answers: Predictions, logits: np.ndarray) -> Scores:
    """The metrics that the benchmark of a text task prints."""
    task = evaluation.spec.task
    if not task or evaluation.text is None:
        return {}
    from kdjax.evaluation.text import task_metrics  # a second that images need not wait for

    groups = evaluation.text.groups[answers.split]
    rows = [task_metrics(task, np.asarray(z), answers.labels, groups) for z in logits]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
