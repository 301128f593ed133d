"""A run that is killed at any moment and restarted equals an uninterrupted run bit for bit."""

import json
import random
import signal
import subprocess
import sys

import pytest

from kdjax.experiment.run import workdir
from tests.faults.commands import refused, train
from tests.faults.runs import LINES, ROOT, assert_same, newest, results, run, truncate


def test_the_uninterrupted_run_is_complete(uninterrupted):
    lines = (uninterrupted[1] / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 * LINES
    keys = [(x["variant"], x["split"], x["step"], x["member"]) for x in map(json.loads, lines)]
    assert len(set(keys)) == len(keys)
    assert results(uninterrupted[1])["complete"]


def test_killed_during_a_checkpoint_and_resumed_with_the_clock_set_back(uninterrupted, tmp_path):
    config, undisturbed = uninterrupted
    argv = train(config, tmp_path / "run")
    died = run(argv, "save", 2)
    assert died.returncode == -signal.SIGKILL, died.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert (undisturbed / "metrics.jsonl").read_bytes().startswith(lines)
    ended = run(argv, "clock", 1)
    assert ended.returncode == 0, ended.stderr
    assert "resumed from step " in ended.stderr
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.long
def test_killed_repeatedly(uninterrupted, tmp_path):
    config, undisturbed = uninterrupted
    argv = train(config, tmp_path / "run")
    # each start continues from the previous kill
    for moment, count in (
        ("line", 22),  # between the lines of one step, while the checkpoint of step 20 is written
        ("save", 2),  # during a checkpoint
        ("done", 1),  # trained, but not yet recorded as done
        ("line", 4 + 27),  # in the second variant, whose teacher is from the first
    ):
        died = run(argv, moment, count)
        assert died.returncode == -signal.SIGKILL, (moment, died.stderr)
        assert "Traceback" not in died.stderr
        lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        assert (undisturbed / "metrics.jsonl").read_bytes().startswith(lines), moment
        assert not (tmp_path / "run" / "report.json").exists()
    stopped = run(argv, "term", 10)
    assert stopped.returncode == 75, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "is saved; the same command resumes from there" in stopped.stderr
    saved = newest(tmp_path / "run" / "checkpoints" / "kd" / "0-3")
    truncate(saved)
    ended = run(argv)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"checkpoint {saved} is damaged" in ended.stderr
    assert "kd: resumed from step " in ended.stderr
    assert_same(tmp_path / "run", undisturbed)


HOLDER = """
import sys, time, pathlib
from kdjax.experiment.run import workdir
with workdir.occupy(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process(uninterrupted, tmp_path, capsys):
    argv = train(uninterrupted[0], tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused(capsys, argv, str(tmp_path / "run"), "in use by another process")
    finally:
        holder.kill()
        holder.wait()
    with workdir.occupy(tmp_path / "run"):
        pass


def moments(seed):
    """Yield random moments: at a line, at a checkpoint, some milliseconds after either."""
    rng = random.Random(seed)
    while True:
        yield rng.choice(
            [
                ("line", rng.randint(1, 40)),
                ("save", rng.randint(1, 4)),
                ("writing", rng.randint(1, 4), rng.randint(0, 60)),
                ("later", rng.randint(1, 40), rng.randint(0, 300)),
            ]
        )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(seed, uninterrupted, tmp_path):
    """Kill ten times in one run, or in several if a run ends first."""
    config, undisturbed = uninterrupted
    killed, number, where = 0, 0, moments(seed)
    while killed < 10:
        folder = tmp_path / f"run{number}"
        moment = next(where)
        done = run(train(config, folder), *moment)
        assert "Traceback" not in done.stderr, (moment, done.stderr)
        if done.returncode == 0:
            assert_same(folder, undisturbed)
            number += 1
            continue
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        lines = (folder / "metrics.jsonl").read_bytes()
        assert (undisturbed / "metrics.jsonl").read_bytes().startswith(lines), moment
        killed += 1
    assert run(train(config, folder)).returncode == 0
    assert_same(folder, undisturbed)
