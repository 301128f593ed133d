"""A full disk during a checkpoint and a log line: one line, and no lost results.

The disk is a small tmpfs. If mounting is not permitted, these tests are skipped; the fakes of
`tests/report/test_metrics_log.py` and `tests/train/test_checkpoint.py` still run.
"""

import errno

from kdjax import cli
from kdjax.report.metrics_log import MetricsLog
from tests.faults.commands import train
from tests.faults.conftest import LARGE
from tests.faults.runs import assert_same

SMALL = "300k"  # two and a half checkpoints


def one_line(capsys):
    """Return the line of the failure, without the lines of progress."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = [x for x in err.splitlines() if x.startswith(("kdjax: ", "ERROR"))]
    assert len(lines) == 1, lines
    assert "No space left on device" in lines[0]
    assert "free space, then run the same command again" in lines[0]
    return lines[0]


def test_full_during_a_checkpoint(uninterrupted, disk, capsys, no_page):
    config, undisturbed = uninterrupted
    folder, resize = disk
    resize(SMALL)
    assert cli.main(train(config, folder / "run")) == 1
    assert "checkpoints/alone/0-3 cannot be written" in one_line(capsys)
    resize(LARGE)
    assert cli.main(train(config, folder / "run")) == 0
    assert "alone: resumed from step " in capsys.readouterr().err
    assert_same(folder / "run", undisturbed)


def fill(folder):
    """Use all free pages."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


def test_full_during_a_log_line(uninterrupted, disk, capsys, no_page, monkeypatch):
    config, undisturbed = uninterrupted
    folder, _ = disk
    write, calls = MetricsLog.write, []

    def filled(*args, **kwargs):
        calls.append(None)
        if len(calls) == 22:  # the last page of the file has room for some lines and a half
            fill(folder)
        write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", filled)
        assert cli.main(train(config, folder / "run")) == 1
    assert "cannot be written" in one_line(capsys)  # the line, or the checkpoint
    assert not (folder / "run" / "metrics.jsonl").read_bytes().endswith(b"\n")
    (folder / "filler").unlink()
    assert cli.main(train(config, folder / "run")) == 0
    assert "alone: resumed from step " in capsys.readouterr().err
    assert_same(folder / "run", undisturbed)
