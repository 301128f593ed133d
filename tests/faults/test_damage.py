"""Damaged files: one line, quarantine, and unchanged results."""

import gc
import shutil
import sys

import pytest

from kdjax import cli
from tests.faults.commands import refused, train
from tests.faults.runs import assert_same, largest, truncate

PART = ("checkpoints", "kd", "0-3")


@pytest.fixture(autouse=True)
def _abandoned_reads(monkeypatch):
    """Collect orbax's abandoned reads so that they do not print errors later."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield
    gc.collect()
    assert not seen


@pytest.fixture
def undone(uninterrupted, tmp_path, no_page):
    """Return a copy of the finished run whose second variant is not recorded as done."""
    shutil.copytree(uninterrupted[1], tmp_path / "run")
    folder = tmp_path.joinpath("run", *PART)
    (folder / "done.json").unlink()
    (tmp_path / "run" / "report.json").unlink()
    return folder


def flip(step):
    file = largest(step / "state")
    content = bytearray(file.read_bytes())
    for place in range(100, len(content), 500):
        content[place] ^= 255
    file.write_bytes(bytes(content))


def wrong_digest(step):
    (file,) = [
        p for p in (step / "record").rglob("*") if p.is_file() and b"digest" in p.read_bytes()
    ]
    file.write_text(file.read_text().replace('"digest": "', '"digest": "0'))


DAMAGE = {
    "truncated": truncate,
    "flipped bits": flip,
    "arrays missing": lambda step: shutil.rmtree(step / "state"),
    "record empty": lambda step: largest(step / "record").write_text(""),
    "arrays not those of the record": wrong_digest,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_previous_checkpoint_is_used(damage, undone, uninterrupted, tmp_path, capsys):
    damage(undone / "60")
    assert cli.main(train(uninterrupted[0], tmp_path / "run")) == 0
    err = capsys.readouterr().err
    (line,) = [x for x in err.splitlines() if "damaged" in x]
    assert str(undone / "60") in line
    assert "kept as damaged-60, trying the one before" in line
    assert "kd: resumed from step 50" in err
    assert "Traceback" not in err
    assert (undone / "damaged-60").is_dir()
    assert_same(tmp_path / "run", uninterrupted[1])


def test_without_a_valid_checkpoint_the_part_restarts(undone, uninterrupted, tmp_path, capsys):
    for step in ("50", "60"):
        truncate(undone / step)
    assert cli.main(train(uninterrupted[0], tmp_path / "run")) == 0
    err = capsys.readouterr().err
    assert err.count("trying the one before") == 2
    assert "kd: resumed" not in err
    assert_same(tmp_path / "run", uninterrupted[1])


def test_an_incomplete_line_of_metrics_is_dropped(undone, uninterrupted, tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40])  # inside the last test line
    assert cli.main(train(uninterrupted[0], tmp_path / "run")) == 0
    assert_same(tmp_path / "run", uninterrupted[1])


def test_missing_lines_of_metrics_are_an_error(undone, uninterrupted, tmp_path, capsys):
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:1000])
    refused(capsys, train(uninterrupted[0], tmp_path / "run"), str(path), "lines are missing")


@pytest.mark.parametrize("name", ["config.json", "checkpoints/kd/0-3/done.json"])
def test_a_damaged_json_is_named(name, uninterrupted, tmp_path, capsys):
    shutil.copytree(uninterrupted[1], tmp_path / "run")
    (tmp_path / "run" / name).write_text('{"config":')
    keep = tmp_path / "run"
    refused(capsys, train(uninterrupted[0], keep), str(keep / name), keep=keep)
