"""A disk that fills up, in a checkpoint and in a log line: one line, and nothing that is lost.

The disk is a small tmpfs; where nobody may mount one, only the fakes of
`tests/report/test_metrics_log.py` and `tests/train/test_checkpoint.py` remain.
"""

import errno
import subprocess

import pytest

from kdjax import cli
from kdjax.report.metrics_log import MetricsLog
from tests.faults.commands import train
from tests.faults.runs import assert_same

SMALL, LARGE = "300k", "20m"  # two checkpoints and a half; room for all


@pytest.fixture
def disk(tmp_path):
    """A folder of its own disk, and a function that gives it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, folder], capture_output=True, check=False)

    try:
        done = mount("-t", "tmpfs", "-o", f"size={LARGE}", "kdjax")
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder, lambda size: mount("-o", f"remount,size={size}")
    subprocess.run(["umount", folder], check=True)


def one_line(capsys):
    """The line of the failure, beside those of the progress."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = [x for x in err.splitlines() if x.startswith(("kdjax: ", "ERROR"))]
    assert len(lines) == 1, lines
    assert "No space left on device" in lines[0]
    assert "make room, and the same command goes on" in lines[0]
    return lines[0]


def test_full_while_a_checkpoint_is_written(whole, disk, capsys, no_page):
    config, undisturbed = whole
    folder, resize = disk
    resize(SMALL)
    assert cli.main(train(config, folder / "run")) == 1
    assert "checkpoints/alone/0-3 cannot be written" in one_line(capsys)
    resize(LARGE)
    assert cli.main(train(config, folder / "run")) == 0
    assert "alone: resumed from step " in capsys.readouterr().err
    assert_same(folder / "run", undisturbed)


def fill(folder):
    """Take all pages that are left."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


def test_full_while_a_line_is_written(whole, disk, capsys, no_page, monkeypatch):
    config, undisturbed = whole
    folder, _ = disk
    write, calls = MetricsLog.write, []

    def filled(*args, **kwargs):
        calls.append(None)
        if len(calls) == 22:  # the last page of the file still takes some lines, and half of one
            fill(folder)
        write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", filled)
        assert cli.main(train(config, folder / "run")) == 1
    assert "cannot be written" in one_line(capsys)  # the line, or the checkpoint beside it
    assert not (folder / "run" / "metrics.jsonl").read_bytes().endswith(b"\n")
    (folder / "filler").unlink()
    assert cli.main(train(config, folder / "run")) == 0
    assert "alone: resumed from step " in capsys.readouterr().err
    assert_same(folder / "run", undisturbed)
