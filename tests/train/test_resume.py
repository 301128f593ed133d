"""Runs on synthetic images: stopped, killed, damaged and diverged."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from kdjax.errors import RunError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import train as running
from kdjax.experiment.run.member_groups import checkpoint_dir, member_groups
from kdjax.experiment.run.results import load_group_state
from kdjax.report.results import Choice
from kdjax.train import checkpoint
from kdjax.train.loop import Stopped

RATE = "roles.*.optimizer.learning_rate"


def config(**changes):
    return {
        "num_steps": 6,
        "batch_size": 16,
        "eval_batch_size": 64,
        "devices": 1,
        "log_every": 1,
        "eval_every": 3,
        "checkpoint_every": 2,
        "grad_norm_every": 3,
        "tensorboard": False,
        "data": {
            "name": "synthetic",
            "num_classes": 4,
            "shape": (6, 6, 1),
            "augment": "crop_flip",
            "limit": 160,
        },
        "roles": {
            "teacher": {
                "model": {"name": "mlp", "hidden": (12,)},
                "terms": {"ce": {}, "forward_kl": {"toward": "student"}},
            },
            "student": {
                "model": {"name": "mlp", "hidden": (8,)},
                "terms": {"ce": {}, "balanced_kl": {"toward": "teacher"}},
            },
        },
        "sweep": {"seed": (0, 4)},
        **changes,
    }


class Killed(BaseException):
    """Simulates a kill; no code may catch it."""


def interrupted(run, batch, action):
    """Train a run with `action` while it waits for batch `batch`."""

    def train(step, seed):
        for number, value in enumerate(run.source.train(step, seed), start=step):
            if number == batch and seed == 0:
                action()
            yield value

    return run._replace(data=run.data._replace(source=run.source._replace(train=train)))


def kill():
    raise Killed


def ending(run, folder, lines=None):
    """Return digests, metrics and outcome of a finished workdir, without wall times."""
    part = member_groups(run, run.variants[0], folder)[0]
    restored = load_group_state(run, part, {}, (lines if lines is not None else []).append)
    outcome = json.loads((checkpoint_dir(part) / "done.json").read_text())
    return (
        checkpoint.digest(restored),
        (folder / "metrics.jsonl").read_text(),
        {**outcome, "seconds": 0},
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Train an uninterrupted run: (run, folder, results)."""
    folder, run = tmp_path_factory.mktemp("whole"), build(config())
    running.train(run, folder, print)
    return run, folder, ending(run, folder)


def test_metrics_are_complete_and_in_order(uninterrupted):
    lines = [json.loads(line) for line in uninterrupted[2][1].splitlines()]
    seen = [(line["step"], line["split"], line["member"]) for line in lines]
    expected = []
    for step in range(1, 7):
        expected += [(step, "train", 0), (step, "train", 1)]
        if step % 3 == 0:
            expected += [(step, "validation", 0), (step, "validation", 1)]
    assert seen == [*expected, (6, "test", 0), (6, "test", 1)]
    assert [line["seed"] for line in lines[:2]] == [0, 4]
    assert "student/balanced_kl/grad_norm" in lines[4]
    assert "student/balanced_kl/grad_norm" not in lines[0]


@pytest.mark.parametrize(
    ("batch", "action", "resumes"),
    [
        (3, lambda: os.kill(os.getpid(), signal.SIGTERM), 4),
        (5, kill, 4),
        (1, kill, None),
    ],
    ids=["sigterm", "killed", "killed at once"],
)
def test_stop_and_resume_equals_an_uninterrupted_run(
    uninterrupted, tmp_path, batch, action, resumes
):
    run, _, expected = uninterrupted
    with pytest.raises((Stopped, Killed)):
        running.train(interrupted(run, batch, action), tmp_path, print)
    lines = []
    running.train(build(config()), tmp_path, lines.append)
    assert lines == ([f"default: resumed from step {resumes}"] if resumes else [])
    assert ending(run, tmp_path) == expected


def test_a_finished_run_is_not_changed(uninterrupted, tmp_path):
    run, folder, expected = uninterrupted
    again = shutil.copytree(folder, tmp_path / "again")
    running.train(interrupted(run, 0, kill), again, print)
    assert ending(run, again) == expected


def test_a_damaged_newest_checkpoint_does_not_change_the_results(uninterrupted, tmp_path):
    run, folder, expected = uninterrupted
    again = shutil.copytree(folder, tmp_path / "again")
    part = checkpoint_dir(member_groups(run, run.variants[0], again)[0])
    (part / "done.json").unlink()
    for path in (part / "6").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    lines = []
    running.train(run, again, lines.append)
    assert "6 is damaged" in lines[0]
    assert lines[1] == "default: resumed from step 4"
    assert (part / "damaged-6").is_dir()
    assert ending(run, again) == expected


def test_a_diverged_member_is_reported_and_the_others_continue(tmp_path, capsys):
    settings = config(sweep={RATE: (0.1, 1e30)})
    run = build(settings)
    (outcome,) = running.train(run, tmp_path, print)
    good, bad = outcome.members
    assert good.diverged is None
    assert bad.diverged.startswith("step 2: ")
    assert "is not finite" in bad.diverged
    captured = capsys.readouterr()
    assert "member 1: step 2: " in captured.out + captured.err
    student = Choice(values={RATE: 0.1}, members=(0,), judge="student")
    assert outcome.chosen["student"] == student
    alone = load_group_state(
        run, member_groups(run, run.variants[0], tmp_path)[0], {}, print
    ).params["student"]
    assert all(np.all(np.isfinite(leaf[0])) for leaf in jax.tree.leaves(alone))


def test_all_diverged_fails_and_keeps_the_last_finite_checkpoint(tmp_path):
    settings = config(sweep={})
    for role in settings["roles"].values():
        # the learning rate jumps after the fourth step, whose state is saved
        schedule = {"name": "step", "boundaries": (4,), "factor": 1e30}
        role["optimizer"] = {"learning_rate": 0.1, "schedule": schedule}
    run = build(settings)
    with pytest.raises(RunError, match=r"^step [56]: \S+ is not finite\. The last good checkpoint"):
        running.train(run, tmp_path, print)
    part = member_groups(run, run.variants[0], tmp_path)[0]
    steps = sorted(int(p.name) for p in checkpoint_dir(part).iterdir() if p.name.isdigit())
    assert steps == [2, 4]
    state = load_group_state(run, part, {}, print)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.params))
