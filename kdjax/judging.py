"""What a run reports of its logits: by the kind of its data, classes or scores, images or text."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import probes, scoring
from kdjax.build import Run

Scores = dict[str, np.ndarray]  # metric -> [members]


class Answers(NamedTuple):
    """The outputs of all roles on a split: logits by role [members, examples, classes].

    Of detectors: detections, [members, pictures, detections x 7]. `critics`: what critics make of
    them, if they judge representations.
    """

    split: str
    logits: Mapping[str, np.ndarray]
    labels: np.ndarray
    critics: Mapping[str, np.ndarray] = MappingProxyType({})


def brief(run: Run, answers: Answers, fitted: Mapping[str, Any]) -> Scores:
    """What is worth knowing during a run, "<role>/<metric>" and what two roles have in common.

    Args:
      run: for the kind of data.
      answers: on the split.
      fitted: probes of representations, from `fit`.
    """
    if run.source.spec.latents:
        return {**probes.score(fitted, answers.logits, answers.labels), **answers.critics}
    bins = run.config["ece_bins"]
    if run.pictures is not None:
        return _of_boxes(run, answers)[0]
    found: Scores = {}
    if not is_regression(run):
        found |= scoring.agreement(answers.logits)
    for role, z in answers.logits.items():
        if is_regression(run):
            values = scoring.regression(z, answers.labels)
        else:
            values = jax.device_get(scoring.brief(z, answers.labels, num_bins=bins))
        values = {**values, **_of_task(run, answers, z)}
        found |= {f"{role}/{name}": value for name, value in values.items()}
    return found


def fit(run: Run, answer: Callable[[str], Answers], *, last: bool) -> dict[str, Any]:
    """What must be fitted before anything is scored, by role.

    Probes of representations, on "train"; else, at the end of a run, a temperature for each role
    and member, on "validation" (none for scores and for boxes).

    Args:
      run: for the kind of data.
      answer: the outputs of all roles on a split.
      last: whether the final scores follow.
    """
    if run.source.spec.latents:
        answers = answer("train")
        return probes.fit(answers.logits, answers.labels)
    if is_regression(run) or run.pictures is not None or not last:
        return {}
    answers = answer("validation")
    return {r: scoring.temperatures(z, answers.labels) for r, z in answers.logits.items()}


def full(run: Run, answers: Answers, fitted: Mapping[str, Any]) -> tuple[Scores, dict[str, Any]]:
    """Every metric of a split, and the reliability bins by role (none for scores).

    Args:
      run: for the kind of data and the number of bins.
      answers: on the split.
      fitted: from `fit`, on another split.
    """
    if run.pictures is not None:
        return _of_boxes(run, answers)
    if is_regression(run) or run.source.spec.latents:
        return brief(run, answers, fitted), {}
    found, bins = scoring.agreement(answers.logits), {}
    for role, z in answers.logits.items():
        values, binned = jax.device_get(
            scoring.full(z, answers.labels, fitted[role], num_bins=run.config["ece_bins"])
        )
        values = {**values, **_of_task(run, answers, z)}
        found |= {f"{role}/{name}": value for name, value in values.items()}
        bins[role] = jax.tree.map(lambda x: np.asarray(x).tolist(), binned)
    return found, bins


def is_regression(run: Run) -> bool:
    """Whether labels are scores."""
    return bool(run.source.spec.task) and run.source.spec.num_classes == 1


def _of_boxes(run: Run, answers: Answers) -> tuple[Scores, dict[str, Any]]:
    """Average precisions, [members] each, and bins of the scores (nothing is fitted to them)."""
    from kdjax.detection_metrics import detection_metrics  # needs an extra

    assert run.pictures is not None
    photos, spec = run.pictures.photos[answers.split], run.source.spec
    found, bins = {}, {}
    for role, packed in answers.logits.items():
        rows = [
            detection_metrics(
                np.asarray(one).reshape(len(photos), -1, 7),
                photos,
                classes=spec.num_classes - 1,
                side=spec.shape[0],
                num_bins=run.config["ece_bins"],
            )
            for one in packed
        ]
        for name in rows[0][0]:
            found[f"{role}/{name}"] = np.array([values[name] for values, _ in rows])
        of = {name: [b[name].tolist() for _, b in rows] for name in rows[0][1]}
        bins[role] = {"before": of}
    return found, bins


def _of_task(run: Run, answers: Answers, logits: np.ndarray) -> Scores:
    """The metrics that the benchmark of a text task prints."""
    task = run.source.spec.task
    if not task or run.text is None:
        return {}
    from kdjax.task_metrics import task_metrics  # a second that images need not wait for

    groups = run.text.groups[answers.split]
    rows = [task_metrics(task, np.asarray(z), answers.labels, groups) for z in logits]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
