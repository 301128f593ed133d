"""A custom task in one file, trained from the command line."""

import json

import numpy as np
import pytest

from kdjax import cli, evaluation
from kdjax.errors import UserError
from kdjax.evaluation.task import Task, by_role
from kdjax.experiment.build import build
from kdjax.experiment.build import data as build_data

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
    rates = {"roles.student.optimizer.learning_rate": (0.0, 0.3)}
    return ConfigDict({
        "num_steps": 4, "eval_every": 2, "batch_size": 32, "log_every": 2, "checkpoint_every": 4,
        "data": {"name": "digits", "validation": 0.2, "test": 0.25, "limit": 200},
        "roles": {"student": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}}},
        "sweep": ConfigDict(rates, allow_dotted_keys=True),
    })
"""


def absolute_errors(evaluation, predictions, fitted):
    """Return the distance between the ranks of ordered classes."""

    def metrics(role, logits):
        gap = np.abs(np.argmax(logits, axis=-1) - predictions.labels)
        return {"mean_absolute_error": gap.mean(-1) + 0.0 * fitted["shift"]}

    return by_role(predictions, metrics)


ORDINAL = Task(
    metrics=lambda spec: {"mean_absolute_error": False},
    validation_metrics=absolute_errors,
    test_metrics=lambda *arguments: (absolute_errors(*arguments), {}),
    fit=lambda predict, final: {"shift": float(len(predict("validation").labels) > 0)},
)


@pytest.fixture
def ordinal(monkeypatch):
    monkeypatch.setitem(evaluation.TASKS, "ordinal", ORDINAL)
    monkeypatch.setitem(build_data.KIND, "digits", "ordinal")


def test_a_task_in_one_file_trains_from_the_command_line(ordinal, tmp_path, capsys):
    file, workdir = tmp_path / "ordinal.py", tmp_path / "run"
    file.write_text(CONFIG)
    assert cli.main(["train", f"--config={file}", f"--workdir={workdir}"]) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    errors = {
        line["member"]: line["student/mean_absolute_error"]
        for line in lines
        if line["split"] == "validation" and line["step"] == 4
    }
    report = json.loads((workdir / "report.json").read_text())
    assert report["selection"]["metric"] == "mean_absolute_error"  # the default of the task
    assert report["selection"]["lower_is_better"]
    chosen = report["variants"][0]["chosen"]["student"]["members"]
    assert chosen == [min(errors, key=errors.get)]  # lower is better
    test = report["variants"][0]["members"][0]["results"]["test"]
    assert set(test) == {"student/mean_absolute_error"}
    assert "mean_absolute_error" in capsys.readouterr().out
    assert cli.main(["eval", f"--workdir={workdir}"]) == 0


def test_an_unknown_metric_is_an_error(ordinal):
    select = {"role": "student", "metric": "nll"}
    roles = {"student": {"model": {"name": "mlp"}, "terms": {"ce": {}}}}
    with pytest.raises(UserError, match=r"select\.metric is 'nll'; there are mean_absolute_error"):
        build.build({"data": {"name": "digits"}, "roles": roles, "select": select})
