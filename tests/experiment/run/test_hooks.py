"""The member whose texts and detections a report shows."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.evaluation.task import Predictions, Task, by_role
from kdjax.experiment.run import hooks
from kdjax.train.loop import DivergenceTracker


def accuracy(evaluation, predictions, fitted):
    return by_role(
        predictions, lambda role, outputs: {"accuracy": outputs[:, 0], "nll": outputs[:, 0]}
    )


TASK = Task(
    metrics=lambda spec: {"accuracy": True},
    validation_metrics=accuracy,
    test_metrics=lambda *arguments: (accuracy(*arguments), {}),
    samples=lambda evaluation, split, outputs: {role: x[0, 0] for role, x in outputs.items()},
    write_texts=lambda dataset, writers: writers,
    score_texts=lambda dataset, writers: {"rouge_l": np.array(writers["student"]) / 4},
)


def score(monkeypatch, logits, diverged, say=print):
    """Score three members with these outputs."""
    outputs = {"student": np.array(logits)[:, None]}
    monkeypatch.setattr(
        hooks, "_predictor", lambda *_: lambda split: Predictions(split, outputs, np.zeros(1))
    )
    monkeypatch.setattr(hooks, "_writers", lambda *_: {"student": [0, 1, 2]})
    experiment = SimpleNamespace(
        evaluation=lambda variant: None,
        task=TASK,
        source=SimpleNamespace(evals={}),
        data=SimpleNamespace(dataset=None),
    )
    group = SimpleNamespace(
        variant=SimpleNamespace(name="kd", members=[{"seed": seed} for seed in range(3)]),
        members=(0, 1, 2),
        stop=None,
        last_step=9,
    )
    program = SimpleNamespace(layout=SimpleNamespace(place=lambda state: state))
    tracker = DivergenceTracker(3, {str(member): "" for member in diverged})
    return hooks.score(experiment, group, program, None, tracker, say)


@pytest.mark.parametrize(("diverged", "row"), [((), 0), ((0,), 1), ((0, 1), 2), ((0, 1, 2), 0)])
def test_texts_and_detections_are_of_the_first_member_that_is_finite(monkeypatch, diverged, row):
    scores = score(monkeypatch, [0.0, 1.0, 2.0], diverged)
    assert [each.results["test"]["rouge_l"] for each in scores.members] == [0, 0.25, 0.5]
    assert scores.samples == {
        "validation": {"student": row}, "test": {"student": row}, "texts": {"student": row},
    }  # fmt: skip


def test_a_member_that_is_nan_on_validation_has_diverged(monkeypatch):
    lines = []
    scores = score(monkeypatch, [np.nan, 1.0, 2.0], (), lines.append)
    text = "step 9: student/nll of validation is NaN"
    assert [member.diverged for member in scores.members] == [text, None, None]
    assert lines == [f"kd, member 0: {text}"]
    assert scores.samples["texts"] == {"student": 1}
