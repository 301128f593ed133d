"""Successive halving on digits: who continues, from which state, and after any interruption."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.commands.report_data import make_report
from kdjax.experiment.run import train as running
from kdjax.experiment.run.member_groups import all_groups, checkpoint_dir
from kdjax.experiment.run.results import load_group_state, load_results
from kdjax.report import html
from kdjax.report.records import RunRecord
from kdjax.train import checkpoint

RATE = "roles.student.optimizer.learning_rate"


def config(**changes):
    return {
        "num_steps": 6,
        "batch_size": 16,
        "devices": 1,
        "log_every": 1,
        "checkpoint_every": 1,
        "tensorboard": False,
        "data": {"name": "digits", "limit": 200},
        "roles": {"student": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}}},
        "sweep": {
            RATE: {"log_uniform": (1e-4, 1.0)},
            "roles.student.terms.ce.weight": {"choice": (0.5, 1.0)},
            "seed": (0, 3),
        },
        "sweep_mode": "random",
        "sweep_members": 4,
        "halving": {"steps": (2, 4)},
        **changes,
    }


class Killed(BaseException):
    """Simulates a kill; no code may catch it."""


def killed(run, kill_at):
    """Return a run that is killed when it has asked for batch `kill_at` of seed 0."""

    def train(step, seed):
        for number, value in enumerate(run.source.train(step, seed), start=step):
            if number == kill_at and seed == 0:
                raise Killed
            yield value

    return run._replace(data=run.data._replace(source=run.source._replace(train=train)))


def ending(run, folder):
    """Return the bytes of the metrics, and digests and results of all groups without times."""
    digests, results = [], []
    for group in all_groups(run, run.variants[0], folder):
        digests.append(checkpoint.digest(load_group_state(run, group, {}, print)))
        result = json.loads((checkpoint_dir(group) / "done.json").read_text())
        results.append((group.members, group.stop, {**result, "seconds": 0}))
    return (folder / "metrics.jsonl").read_bytes(), digests, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train an uninterrupted run: (run, folder, its variant's result, ending)."""
    folder, run = tmp_path_factory.mktemp("whole"), build(config())
    (result,) = running.train(run, folder, print)
    return run, folder, result, ending(run, folder)


def test_the_best_points_continue_with_all_seeds(finished):
    run, _, result, (metrics, _, groups) = finished
    assert [(len(members), stop) for members, stop, _ in groups] == [(8, 2), (4, 4), (2, None)]
    for (_, _, before), (after, _, _) in itertools.pairwise(groups):
        score = {
            m["member"]: m["results"]["validation"]["student/accuracy"] for m in before["members"]
        }
        half = len(run.variants[0].members) // 2  # the same points with the other seed
        means = {m: score[m] + score[m + half] for m in score if m < half}
        best = sorted(means, key=lambda m: -means[m])[: len(after) // 2]
        assert {means[m] for m in after if m < half} == {means[m] for m in best}
        assert {m + half for m in after if m < half} == {m for m in after if m >= half}
    last = groups[-1][0]
    dropped = [member.dropped for member in result.members]
    assert [dropped.count(step) for step in (2, 4, None)] == [4, 2, 2]
    assert [m.member for m in result.members] == list(range(8))
    assert [m.member for m in result.members if m.dropped is None] == list(last)
    assert set(result.chosen["student"].members) == set(last)
    assert all(("test" in m.results) == (m.dropped is None) for m in result.members)
    lines = [json.loads(line) for line in metrics.splitlines()]
    trained = {(line["step"], line["member"]) for line in lines if line["split"] == "train"}
    assert trained == {(step, m) for step in range(1, 7) for m in groups[(step - 1) // 2][0]}


def test_survivors_equal_members_of_a_run_without_halving(finished, tmp_path):
    run, folder, result, _ = finished
    plain = build(config(halving={}, log_every=0, checkpoint_every=0))
    running.train(plain, tmp_path, print)
    (group,) = all_groups(plain, plain.variants[0], tmp_path)
    expected = load_group_state(plain, group, {}, print).params["student"]
    networks = load_results(run, folder, print).networks(run.variants[0])["student"].params
    for member in result.chosen["student"].members:
        for mine, other in zip(jax.tree.leaves(networks), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(mine[member], other[member], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kill_at", [2, 3, 5])  # before, after a checkpoint of round 2; last round
def test_a_kill_and_a_resume_change_no_byte(finished, tmp_path, kill_at):
    run, _, _, expected = finished
    with pytest.raises(Killed):
        running.train(killed(run, kill_at), tmp_path, print)
    running.train(run, tmp_path, print)
    assert ending(run, tmp_path) == expected


@pytest.mark.parametrize("round_number", [0, 1])
def test_a_kill_between_the_last_checkpoint_of_a_round_and_its_results(
    finished, tmp_path, monkeypatch, round_number
):
    run, _, _, expected = finished
    calls = iter(range(3))

    def write(group, result, write=running.write_group):
        if next(calls) == round_number:
            raise Killed
        write(group, result)

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_group", write)
        with pytest.raises(Killed):
            running.train(run, tmp_path, print)
    running.train(run, tmp_path, print)
    assert ending(run, tmp_path) == expected


def test_a_stopped_run_is_scored_as_of_its_last_round(finished, tmp_path):
    run, _, _, (_, _, groups) = finished
    with pytest.raises(Killed):
        running.train(killed(run, 3), tmp_path, print)
    lines = []
    (result,) = running.evaluate(run, tmp_path, lines.append)
    assert lines == ["default is not finished: its last checkpoint, step 3 of 6"]
    scored = [member.member for member in result.members if "test" in member.results]
    assert scored == list(groups[1][0])
    assert [m.dropped for m in result.members].count(2) == 4


def test_more_steps_continue_the_last_round(finished, tmp_path):
    _, folder, result, (_, _, groups) = finished
    again = shutil.copytree(folder, tmp_path / "again")
    longer = build(config(num_steps=8))
    (extended,) = running.train(longer, again, print)
    assert [m.dropped for m in extended.members] == [m.dropped for m in result.members]
    lines = map(json.loads, (again / "metrics.jsonl").read_text().splitlines())
    trained = {(line["step"], line["member"]) for line in lines if line["split"] == "train"}
    last = set(itertools.product((7, 8), groups[-1][0]))
    assert {entry for entry in trained if entry[0] > 6} == last


@pytest.mark.long
def test_rounds_over_two_devices_drop_the_same_members(finished, tmp_path):
    """Each device has half of the members of a round."""
    result = finished[2]
    run = build(config(devices=2, log_every=0, checkpoint_every=0))
    (spread,) = running.train(run, tmp_path, print)
    assert [m.dropped for m in spread.members] == [m.dropped for m in result.members]
    assert spread.chosen["student"].members == result.chosen["student"].members
    for mine, other in zip(spread.members, result.members, strict=True):
        scores = (m.results["validation"]["student/nll"] for m in (mine, other))
        np.testing.assert_allclose(*scores, rtol=1e-4)


@pytest.mark.long  # compiles programs of three more sizes
def test_rounds_may_be_several_programs(finished, tmp_path):
    result = finished[2]
    run = build(config(members_per_program=3))
    (divided,) = running.train(run, tmp_path, print)
    assert [m.dropped for m in divided.members] == [m.dropped for m in result.members]
    assert divided.chosen["student"].members == result.chosen["student"].members
    groups = all_groups(run, run.variants[0], tmp_path)
    assert [len(group.members) for group in groups] == [3, 3, 2, 3, 1, 2]


def test_eval_repeats_the_results_and_the_report_says_who_was_dropped(finished):
    run, folder, result, _ = finished
    (again,) = running.evaluate(run, folder, print)
    assert again.members == result.members
    assert again.reliability == result.reliability
    report = make_report(run, [again], title="", command="", complete=True)
    page = html.page([RunRecord("run", report)])
    assert "4 of 8 members were dropped after step 2 and 2 after step 4." in page
    assert "Dropped members" in page
    assert "stroke-dasharray" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"halving": {"steps": (2, 2)}}, r"halving.steps is \(2, 2\); the steps must rise"),
        ({"halving": {"steps": (0,)}}, "from 1 or more"),
        ({"halving": {"steps": (6,)}}, "less than num_steps = 6"),
        ({"halving": {"steps": (2,), "share": 1.0}}, "share is 1.0; it must be > 0 and < 1"),
        ({"sweep_members": 0}, "sweep_members is 0; it must be >= 1"),
        ({"data": {"name": "digits", "validation": 0}}, "leaves no validation examples"),
        (
            {"select": {"metric": "agreement"}},
            "'agreement', which compares two roles, of 1; there are accuracy, nll",
        ),
    ],
)
def test_errors(changes, message):
    with pytest.raises(UserError, match=message):
        build(config(**changes))


def test_a_variant_that_sweeps_seeds_only_has_one_round(tmp_path):
    run = build(config(sweep={"seed": (0, 3)}, num_steps=5))
    running.train(run, tmp_path, print)
    (group,) = all_groups(run, run.variants[0], tmp_path)
    assert group.stop is None
