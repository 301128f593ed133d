"""A non-finite loss stops the run, names step, role and term, and keeps the last state."""

import json

import pytest

from kdjax import cli
from tests.faults.commands import base, experiment, refused, train
from tests.faults.runs import newest, read_state


@pytest.fixture(autouse=True)
def _no_page(no_page):
    pass


def steps_of(folder):
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_the_run_stops_and_keeps_the_last_finite_checkpoint(tmp_path, capsys):
    """The run is finite for four steps; then the learning rate is 1e30."""
    schedule = {"name": "step", "boundaries": (4,), "factor": 1e32}
    settings = base(
        num_steps=20,
        log_every=1,
        roles__student__optimizer={"learning_rate": 0.01, "schedule": schedule},
    )
    config = experiment(tmp_path, settings)
    argv = train(config, tmp_path / "run")
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    line = err.splitlines()[-1]
    assert "Traceback" not in err
    assert "student/" in line
    assert "is not finite" in line
    assert "last good checkpoint is kept" in line
    step = int(line.split("step ")[1].split(":")[0])
    assert 4 < step < 20
    assert line.split("step ")[1].split(" is not finite")[0].split("/")[-1] in ("ce", "balanced_kl")
    part = tmp_path / "run" / "checkpoints" / "default" / "0-0"
    assert int(newest(part).name) == max(n for n in range(2, step, 2))
    _, state, _ = read_state(part)
    assert state is not None
    assert steps_of(tmp_path / "run") == list(range(1, step))  # the others are not written
    # the same command gives the same error from the last checkpoint
    assert cli.main(argv) == 1
    again = capsys.readouterr().err.splitlines()
    assert again[-1] == line
    assert steps_of(tmp_path / "run") == list(range(1, step))


def test_diverged_from_the_start(tmp_path, capsys):
    config = experiment(tmp_path, base(num_steps=6))
    argv = train(config, tmp_path / "run", "--config.roles.teacher.optimizer.learning_rate=1e38")
    line = refused(capsys, argv, "is not finite", "lower learning rate", status=1)
    assert "teacher/ce" in line or "student/balanced_kl" in line
    assert not (tmp_path / "run" / "report.json").exists()


def test_other_members_continue_after_one_diverges(tmp_path, capsys):
    rate = "roles.*.optimizer.learning_rate"
    config = experiment(tmp_path, base(num_steps=8, sweep={rate: (0.1, 1e38)}))
    assert cli.main(train(config, tmp_path / "run")) == 0
    captured = capsys.readouterr()
    assert "member 1: step " in captured.err
    assert "is not finite" in captured.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (variant,) = report["variants"]
    good, bad = variant["members"]
    assert good["diverged"] is None
    assert "is not finite" in bad["diverged"]
    assert variant["chosen"]["student"]["members"] == [0]
    assert variant["chosen"]["teacher"]["members"] == [0]
