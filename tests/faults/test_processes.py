"""Two processes: one is killed, one gets SIGTERM, or the workdir is in use."""

import signal

import pytest

from kdjax.experiment.run import workdir
from tests.faults.commands import base, experiment, train
from tests.faults.several import finish, start

CONFIG = base(num_steps=40, log_every=5, checkpoint_every=10, batch_size=32, eval_batch_size=32)
CONFIG["devices"] = 0  # all: one in each process


@pytest.fixture
def argv(tmp_path):
    return train(experiment(tmp_path, CONFIG), tmp_path / "run")


def messages(text):
    return [line for line in text.splitlines() if line.startswith("kdjax: ")]


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_the_peer_of_a_killed_process_exits_and_both_resume(victim, argv, tmp_path):
    """An unlimited wait would fail in `finish` after a timeout of up to ten minutes."""
    moments = [(), ()]
    moments[victim] = ("save", 2)
    results = finish(start([argv], moments))
    assert results[victim][0] == -signal.SIGKILL
    other, stderr = results[1 - victim]
    assert other == 1, stderr
    (line,) = messages(stderr)
    assert f"process {1 - victim}: another process is gone or cannot be reached" in line
    assert "start all of them again" in line
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = finish(start([argv]))
    assert [status for status, _ in again] == [0, 0], again
    assert "resumed from step 10" in again[0][1]
    ended = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert ended.startswith(lines[: lines.rfind(b"\n", 0, len(lines) // 2)])
    assert ended.count(b'"split": "train"') == 8


@pytest.mark.long
def test_sigterm_to_one_process_stops_both_at_the_same_step(argv):
    """The run is long because JAX needs up to seconds to forward the signal to all processes."""
    long = [*argv, "--config.num_steps=20000", "--config.log_every=100"]
    long += ["--config.checkpoint_every=20000"]
    (first, stderr), (second, other) = finish(start([long], (("term", 3), ())))
    assert (first, second) == (75, 75), (stderr, other)
    assert "which is saved; the same command resumes from there" in stderr
    assert "Traceback" not in stderr + other


def test_a_workdir_in_use_is_an_error_in_all_processes(argv, tmp_path):
    with workdir.occupy(tmp_path / "run"):
        results = finish(start([argv]))
    for status, stderr in results:
        assert status == 2, stderr
        assert "in use by another process" in messages(stderr)[0]
