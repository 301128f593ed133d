"""Two processes equal one: training, evaluation, checkpoints, both layouts, sweeps.

The tolerance is that of float32 sums in another order, as in `test_devices.py`.
"""

import json
import shutil
import threading

import jax
import numpy as np
import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import all_groups
from kdjax.experiment.run.results import load_group_state
from kdjax.train import checkpoint, distributed, multihost
from tests.faults.commands import experiment, refused, train
from tests.faults.several import finish, start

CLOSE = {"rtol": 2e-4, "atol": 2e-5}
STEPS = 6
CONFIG = {
    "num_steps": STEPS,
    "batch_size": 32,
    "eval_batch_size": 100,  # 179 and 449 examples: the second process has an empty last half
    "log_every": 1,
    "eval_every": 3,
    "checkpoint_every": 2,
    "grad_norm_every": 3,
    "tensorboard": False,
    "data": {"name": "digits", "augment": "crop_flip"},
    "roles": {
        "teacher": {
            "model": {"name": "cnn", "widths": (4,)},  # batch norm
            "terms": {"ce": {}, "forward_kl": {"toward": "student"}},
        },
        "student": {
            "model": {"name": "mlp", "hidden": (8,)},
            "terms": {"ce": {}, "correlation": {"toward": "teacher"}},  # couples the batch
        },
    },
}
PART = ("checkpoints", "default", "0-0")


def rewind(workdir, copy):
    """Return a copy of a finished run in its state after the checkpoint of step 4."""
    shutil.copytree(workdir, copy)
    part = copy.joinpath(*PART)
    (part / "done.json").unlink()
    shutil.rmtree(part / str(STEPS))
    (part / "seals" / f"{STEPS}.json").unlink()
    return copy


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_close(workdir, expected):
    actual = metrics(workdir)
    assert len(actual) == len(expected)
    for line, other in zip(actual, expected, strict=True):
        assert set(line) == set(other)
        for name in ("step", "split"):
            assert line[name] == other[name]
        numbers = [n for n in line if n not in ("step", "split")]
        values = [[row[n] for n in numbers] for row in (line, other)]
        where = f"step {line['step']} {line['split']}"
        for name, a, b in zip(numbers, *values, strict=True):
            # an image near the edge of a bin or class may change sides
            loose = 0.02 if name.endswith(("accuracy", "ece", "agreement")) else 0.0
            loose = 0.1 if "temperature" in name or "calibrated" in name else loose
            close = {**CLOSE, "atol": max(CLOSE["atol"], loose)}
            np.testing.assert_allclose(a, b, err_msg=f"{where} {name}", **close)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Train in one process: (config, folder of all runs, metrics)."""
    folder = tmp_path_factory.mktemp("several")
    config = experiment(folder, CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(config, folder / "single", "--config.devices=1")) == 0
    return config, folder, metrics(folder / "single")


@pytest.fixture(scope="module")
def pair(single):
    """Train in two processes, once for each layout: exit status and output of each."""
    config, folder, _ = single
    results = {}

    def run(layout):
        if layout not in results:
            argv = train(config, folder / layout, f"--config.parallel={layout}")
            results[layout] = finish(start([argv]))
        return results[layout]

    return run


def test_both_succeed_and_only_process_0_logs(pair):
    (first, stdout), (second, nothing) = pair("pmap")
    assert (first, second) == (0, 0), (stdout, nothing)
    assert "step 6/6" in stdout
    assert "Traceback" not in stdout + nothing
    assert not [line for line in nothing.splitlines() if "[Gloo]" not in line], nothing


@pytest.mark.parametrize("layout", ["pmap", pytest.param("mesh", marks=pytest.mark.long)])
def test_two_processes_equal_one(layout, single, pair):
    _, folder, expected = single
    pair(layout)
    assert_close(folder / layout, expected)
    report = json.loads((folder / layout / "report.json").read_text())
    assert report["complete"]


@pytest.mark.long
def test_two_processes_resume_a_run_of_one(single):
    config, folder, expected = single
    copy = rewind(folder / "single", folder / "to_two")
    results = finish(start([train(config, copy, "--config.parallel=mesh")]))
    assert [status for status, _ in results] == [0, 0], results
    assert "default: resumed from step 4" in results[0][1]
    assert_close(copy, expected)


def test_one_process_resumes_a_run_of_two(single, pair, capsys, monkeypatch):
    config, folder, expected = single
    pair("pmap")
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    copy = rewind(folder / "pmap", folder / "to_one")
    assert cli.main(train(config, copy, "--config.devices=2")) == 0
    assert "default: resumed from step 4" in capsys.readouterr().err
    assert_close(copy, expected)


@pytest.mark.long
def test_members_over_two_processes_equal_one_process_bit_for_bit(tmp_path, monkeypatch):
    """Each of four devices has one member, whether they are of one process or of two.

    The seeds differ between the processes, so each reads batches of its own.
    """
    roles = {"student": {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}}}
    sweep = {"seed": (0, 1), "roles.student.optimizer.learning_rate": (0.1, 0.2)}
    data = {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3}
    changes = {"roles": roles, "sweep": sweep, "data": data}
    changes |= {"log_every": 2, "eval_every": 4, "grad_norm_every": 0}
    config = experiment(tmp_path, CONFIG | changes)
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    assert cli.main(train(config, tmp_path / "one", "--config.devices=4")) == 0
    results = finish(start([train(config, tmp_path / "two")], devices=2))
    assert [status for status, _ in results] == [0, 0], results
    one, two = (tmp_path / name for name in ("one", "two"))
    assert (two / "metrics.jsonl").read_bytes() == (one / "metrics.jsonl").read_bytes()
    reports = [json.loads((folder / "report.json").read_text()) for folder in (one, two)]
    members = [report["variants"][0]["members"] for report in reports]
    assert members[0] == members[1]
    run = build({**CONFIG, **changes, "devices": 4})
    states = [
        load_group_state(run, all_groups(run, run.variants[0], folder)[0], {}, print)
        for folder in (one, two)
    ]
    assert int(states[0].step) == STEPS
    assert checkpoint.digest(states[0]) == checkpoint.digest(states[1])
    kernel = jax.tree.leaves(states[1].params)[1]
    assert len(np.unique(kernel[:, 0, 0])) == 4  # members differ


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--coordinator=a:1"], ["--coordinator is given without --distributed"]),
        (["--distributed", "--coordinator=a:1"], ["belong together", "--process-id"]),
        (
            ["--distributed", "--coordinator=a:1", "--num-processes=2", "--process-id=2"],
            ["--process-id is 2", "from 0 to 1"],
        ),
        (["--distributed"], ["cannot be found", "--coordinator"]),
    ],
)
def test_invalid_addresses_are_errors(flags, words, tmp_path, capsys, monkeypatch):
    for variable in distributed.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    config = experiment(tmp_path, CONFIG)
    refused(capsys, train(config, tmp_path / "run", *flags), *words)


def test_environment_variables_replace_flags(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES is 'two'; it must be a whole number"):
        distributed._count("--num-processes", "JAX_NUM_PROCESSES", None)
    assert distributed._count("--num-processes", "JAX_NUM_PROCESSES", 3) == 3


def test_all_calls_after_a_preemption_return_true(monkeypatch):
    """Steps begin again with each variant, but the numbers that JAX compares rise."""
    numbers = []

    def reached(number):
        numbers.append(number)
        return len(numbers) == 3

    monkeypatch.setattr(multihost.multihost_utils, "reached_preemption_sync_point", reached)
    monkeypatch.setattr(multihost, "_is_preempted", threading.Event())
    assert [multihost.preempted() for _ in range(5)] == [False, False, True, True, True]
    assert np.diff(numbers).tolist() == [1, 1]
