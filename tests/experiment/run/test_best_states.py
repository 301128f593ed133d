"""The states of the best validations: each member's own step, exact resume, eval and export."""

import dataclasses
import json
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import train as running
from kdjax.experiment.run.best_states import open_best
from kdjax.experiment.run.member_groups import MemberGroup, all_groups
from kdjax.experiment.run.results import load_results
from kdjax.report import files
from kdjax.types import State
from tests.faults.commands import experiment, train

RATES = (0.05, 5.0)  # the second member gets worse
CONFIG = {
    "num_steps": 6,
    "batch_size": 16,
    "devices": 1,
    "log_every": 1,
    "eval_every": 1,
    "checkpoint_every": 2,
    "keep_best": True,
    "tensorboard": False,
    "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3},
    "roles": {"student": {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}}},
    "select": {"metric": "nll"},
    "sweep": {"roles.student.optimizer.learning_rate": RATES},
}


def validations(folder):
    """Return member -> negative log-likelihood on validation at each step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    rows = [line for line in lines if line["split"] == "validation"]
    return [[row["student/nll"] for row in rows if row["member"] == m] for m in range(len(RATES))]


def best_networks(run, folder):
    results = load_results(run, folder, print)
    return jax.tree.leaves(results.networks(run.variants[0], best=True)["student"].params)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, run = tmp_path_factory.mktemp("best"), build(CONFIG)
    running.train(run, folder, print)
    return run, folder


def test_each_member_has_the_state_of_its_own_best_step(finished):
    run, folder = finished
    lines = []
    (result,) = running.evaluate(run, folder, lines.append, best=True)
    scores = validations(folder)
    steps = [1 + int(np.argmin(values)) for values in scores]
    assert steps[0] > steps[1]
    assert lines == [f"default: the best validations were after steps {steps[0]}, {steps[1]}"]
    measured = [member.results["validation"]["student/nll"] for member in result.members]
    np.testing.assert_allclose(measured, [min(values) for values in scores], rtol=1e-6)
    (last,) = running.evaluate(run, folder, print)
    assert last.members[1].results["test"] != result.members[1].results["test"]


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_resumed_run_has_the_same_best_states(finished, place, tmp_path, request):
    run, folder = finished
    workdir = files.as_path(str(tmp_path))
    if place == "bucket":
        workdir = files.as_path(request.getfixturevalue("service").create("best") + "/run")

    class Killed(BaseException):
        pass

    def batches(step, seed):
        for number, batch in enumerate(run.source.train(step, seed), start=step):
            if number == 3:  # after the validation of step 3, which no checkpoint follows
                raise Killed
            yield batch

    source = run.source._replace(train=batches)
    with pytest.raises(Killed):
        running.train(run._replace(data=run.data._replace(source=source)), workdir, print)
    running.train(run, workdir, print)
    for one, other in zip(best_networks(run, workdir), best_networks(run, folder), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def open_states(tmp_path):
    """Return a function that opens the best states of two members, without a program."""
    run = build(CONFIG)
    group = MemberGroup(run.variants[0], (0, 1), tmp_path)
    method = SimpleNamespace(trains=("student",))
    program = SimpleNamespace(method=method, layout=SimpleNamespace(fetch=lambda state: state))

    @contextmanager
    def opened(lines):
        with open_best(run, group, program, weights(0, 0.0), lines.append) as states:
            yield states

    return opened


def weights(step, value):
    network = {"student": {"w": np.full((2, 3), value, np.float32)}}
    return State(np.array(step), np.array(0), network, {"student": {}}, {"student": {}}, {})


def nll(*scores):
    return {"student/nll": np.array(scores)}


def test_a_damaged_best_state_is_reported(open_states, tmp_path):
    with open_states([]) as states:
        states.update(3, nll(1.0, 2.0), weights(3, 3.0), {})
    (tmp_path / "0-1" / "best" / "3" / "record" / "metadata").write_text("{")
    lines = []
    with open_states(lines) as states:
        assert np.isnan(states.scores).all()
    assert len(lines) == 2
    assert "best/3 is damaged (its file record/metadata has changed" in lines[0]
    assert lines[1].endswith("best: no best state is left; only later validations count")


@pytest.mark.parametrize("step", [3, 5], ids=["behind", "same step"])
def test_a_better_state_behind_the_stored_one_is_written(open_states, step):
    with open_states([]) as states:
        states.update(5, nll(1.0, 2.0), weights(5, 5.0), {})
    with open_states(lines := []) as states:  # resumed from an earlier checkpoint
        states.update(step, nll(1.5, 1.5), weights(step, 7.0), {})
    assert not lines
    with open_states([]) as states:
        assert states.scores.tolist() == [1.0, 1.5]
        assert states.steps.tolist() == [5, step]
        np.testing.assert_array_equal(states.trained[0]["student"]["w"][:, 0], [5.0, 7.0])
        states.update(6, nll(0.5, 0.5), weights(6, 8.0), {})
    with open_states([]) as states:
        assert states.steps.tolist() == [6, 6]


def test_export_writes_the_best_weights_and_their_temperature(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    run, folder = finished
    config = experiment(tmp_path, CONFIG)
    assert cli.main(train(config, tmp_path / "run")) == 0
    for name, flags in (("last", []), ("best", ["--best"])):
        argv = ["export", f"--workdir={tmp_path / 'run'}", "--role=student", "--member=1"]
        assert cli.main([*argv, f"--out={tmp_path / name}", *flags]) == 0
    (result,) = running.evaluate(run, folder, print, best=True)
    stored = [json.loads((tmp_path / n / "config.json").read_text()) for n in ("best", "last")]
    expected = result.members[1].results["test"]["student/temperature"]
    assert stored[0]["temperature"] == pytest.approx(expected)
    assert stored[1]["temperature"] != stored[0]["temperature"]
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("best", "last")]
    assert weights[0] != weights[1]


def test_a_run_without_best_states_is_refused(tmp_path):
    run = build({**CONFIG, "keep_best": False, "num_steps": 1})
    running.train(run, tmp_path, print)
    with pytest.raises(UserError, match="has no best state; train with keep_best=True"):
        running.evaluate(run, tmp_path, print, best=True)


def test_best_needs_validations():
    with pytest.raises(UserError, match="keep_best needs validations during the run; set eval"):
        build({**CONFIG, "eval_every": 0})


def test_a_metric_that_is_not_measured_during_a_run_is_refused(tmp_path):
    run = build({**CONFIG, "select": {"metric": "ece_calibrated"}})
    with pytest.raises(UserError, match="'ece_calibrated' is not measured during a run; there"):
        running.train(run, tmp_path, print)


def test_the_frozen_teacher_stays_that_of_training(tmp_path):
    frozen = {"roles.teacher": {"from_variant": "alone", "terms": {"ce": None}}}
    roles = {"teacher": CONFIG["roles"]["student"], **CONFIG["roles"]}
    path = "roles.teacher.optimizer.learning_rate"
    variants = {"alone": {"sweep": {path: RATES}}, "kd": {**frozen, "sweep": {}}}
    run = build({**CONFIG, "num_steps": 2, "roles": roles, "variants": variants, "sweep": {}})
    running.train(run, tmp_path, print)
    results = load_results(run, tmp_path, print)
    (group,) = all_groups(run, run.variants[1], tmp_path)
    before = results.initial_weights(group)["teacher"]
    outcome = results.outcomes["alone"]
    choice = outcome.chosen["teacher"]
    other = dataclasses.replace(choice, members=(1 - choice.members[0],))
    scored = dataclasses.replace(outcome, chosen={**outcome.chosen, "teacher": other})
    results.outcomes["alone"] = scored  # as `eval --best` may do
    after = results.initial_weights(group)["teacher"]
    jax.tree.map(np.testing.assert_array_equal, after.variables, before.variables)
