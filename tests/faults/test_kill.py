"""Killed at any moment and started again, a run ends as if nothing had happened, bit for bit."""

import json
import signal

from tests.faults.commands import train
from tests.faults.runs import LINES, assert_same, newest, results, run, truncate


def test_the_undisturbed_run_is_complete(whole):
    lines = (whole[1] / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 * LINES
    keys = [(x["variant"], x["split"], x["step"], x["member"]) for x in map(json.loads, lines)]
    assert len(set(keys)) == len(keys)
    assert results(whole[1])["complete"]


def test_killed_again_and_again(whole, tmp_path):
    config, undisturbed = whole
    argv = train(config, tmp_path / "run")
    # each start goes on where the one before died
    for moment, count in (
        ("line", 22),  # between the lines of one step, while the checkpoint of step 20 is written
        ("save", 2),  # inside a checkpoint
        ("done", 1),  # trained, but not yet recorded as done
        ("line", 4 + 27),  # in the second variant, whose teacher comes from the first
    ):
        died = run(argv, moment, count)
        assert died.returncode == -signal.SIGKILL, (moment, died.stderr)
        assert "Traceback" not in died.stderr
        lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        assert (undisturbed / "metrics.jsonl").read_bytes().startswith(lines), moment
        assert not (tmp_path / "run" / "report.json").exists()
    stopped = run(argv, "term", 10)
    assert stopped.returncode == 0, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "is saved; the same command goes on from there" in stopped.stderr
    saved = newest(tmp_path / "run" / "checkpoints" / "kd" / "0-3")
    truncate(saved)
    ended = run(argv)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"checkpoint {saved} is damaged" in ended.stderr
    assert "kd: resumed from step " in ended.stderr
    assert_same(tmp_path / "run", undisturbed)
