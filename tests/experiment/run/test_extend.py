"""Runs that go on after their end, and runs that are evaluated and exported before it."""

import json
import os
import signal

import pytest

from kdjax import cli
from kdjax.experiment.build.build import build
from kdjax.experiment.run import train as running
from kdjax.models.io import export
from tests.faults.commands import base, experiment, refused, train
from tests.train.test_resume import ending, interrupted

CONSTANT = {"learning_rate": 0.1, "schedule": {"name": "constant"}}


def config(steps, **changes):
    return base(
        num_steps=steps,
        roles__teacher=None,
        roles__student__terms={"ce": {}},
        roles__student__optimizer=CONSTANT,
        **changes,
    )


@pytest.fixture
def no_page(monkeypatch):
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")


@pytest.fixture
def stopped(tmp_path, no_page, monkeypatch):
    """Return the command of a run of four steps that a signal stopped after two."""
    argv = train(experiment(tmp_path, config(4)), tmp_path / "run")
    with monkeypatch.context() as patch:

        def build_interrupted(table):
            return interrupted(build(table), 1, lambda: os.kill(os.getpid(), signal.SIGTERM))

        patch.setattr("kdjax.experiment.commands.train_run.build", build_interrupted)
        assert cli.main(argv) == 75
    return argv, tmp_path


def test_a_stopped_run_is_evaluated_exported_finished_and_extended(stopped, capsys):
    argv, folder = stopped
    where = f"--workdir={folder / 'run'}"
    words = ("run of 4 steps is not finished",)
    refused(capsys, [*argv, "--config.num_steps=6"], *words, keep=folder / "run")
    assert cli.main(["eval", where]) == 0
    out, err = capsys.readouterr()
    assert "default is not finished: its last checkpoint, step 2 of 4" in err
    assert "student" in out
    assert cli.main(["export", where, "--role=student", f"--out={folder / 'two'}"]) == 0
    assert export.describe(folder / "two")["temperature"] > 0

    assert cli.main(argv) == 0
    assert cli.main(["export", where, "--role=student", f"--out={folder / 'four'}"]) == 0
    two, four = ((folder / name / "model.safetensors").read_bytes() for name in ("two", "four"))
    assert two != four

    assert cli.main([*argv, "--config.num_steps=6"]) == 0
    assert json.loads((folder / "run" / "report.json").read_text())["steps"] == 6
    longer = build(config(6))
    running.train(longer, folder / "longer", print)
    (state, _, result), (expected, _, longer_result) = (
        ending(longer, folder / name) for name in ("run", "longer")
    )
    assert state == expected
    assert result["members"] == longer_result["members"]
    lines = [json.loads(x) for x in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "test"] == [4, 6]
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6]
    words = ("num_steps: 6 -> 5",)
    refused(capsys, [*argv, "--config.num_steps=5"], *words, keep=folder / "run")


def test_a_rate_that_rises_again_is_named(tmp_path, no_page):
    settings = config(2)
    settings["roles"]["student"]["optimizer"] = {"learning_rate": 0.1}
    argv = train(experiment(tmp_path, settings), tmp_path / "run")
    assert cli.main(argv) == 0
    with pytest.warns(UserWarning, match="schedule is cosine over 4 steps now: .* at step 2"):
        assert cli.main([*argv, "--config.num_steps=4"]) == 0


def test_variants_that_start_from_one_another_are_not_extended(tmp_path, no_page, capsys):
    variants = {"a": {}, "b": {"roles": {"student": {"from_variant": "a"}}}}
    argv = train(experiment(tmp_path, config(2, variants=variants)), tmp_path / "run")
    assert cli.main(argv) == 0
    words = ("num_steps cannot grow", "from_variant")
    refused(capsys, [*argv, "--config.num_steps=4"], *words, keep=tmp_path / "run")
