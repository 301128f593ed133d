"""Two processes: one is killed, one is asked to end, a third pair comes too late."""

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


def spoken(text):
    return [line for line in text.splitlines() if line.startswith("kdjax: ")]


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_of_a_killed_process_ends_with_a_line_and_both_resume(victim, argv, tmp_path):
    """A wait without bound would end in `finish`, after ten minutes on a busy machine."""
    moments = [(), ()]
    moments[victim] = ("save", 2)
    told = finish(start([argv], moments))
    assert told[victim][0] == -signal.SIGKILL
    other, said = told[1 - victim]
    assert other == 1, said
    (line,) = spoken(said)
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
def test_one_that_is_asked_to_end_stops_both_at_one_step(argv):
    """Of many steps: JAX needs up to seconds to tell all processes of the signal."""
    long = [*argv, "--config.num_steps=20000", "--config.log_every=100"]
    long += ["--config.checkpoint_every=20000"]
    (first, said), (second, other) = finish(start([long], (("term", 3), ())))
    assert (first, second) == (75, 75), (said, other)
    assert "which is saved; the same command goes on from there" in said
    assert "Traceback" not in said + other


def test_a_workdir_in_use_is_refused_by_all(argv, tmp_path):
    with workdir.occupy(tmp_path / "run"):
        told = finish(start([argv]))
    for status, said in told:
        assert status == 2, said
        assert "in use by another process" in spoken(said)[0]
