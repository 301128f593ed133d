"""Runs whose workdir is in a bucket, against an emulator on this machine."""

import signal

from kdjax import cli
from tests.faults.commands import refused, train
from tests.faults.runs import assert_same, run


def test_a_run_equals_a_local_one(remote, uninterrupted, service, tmp_path):
    copy = service.download("whole", tmp_path / "run", "runs/tiny/")
    assert_same(copy, uninterrupted[1])
    left, right = (
        sorted(p.relative_to(f).as_posix() for p in f.rglob("*.json*"))
        for f in (copy, uninterrupted[1])
    )
    assert {p for p in right if "seals" not in p} <= set(left)
    assert not (copy / ".lock").exists()


def test_commands_read_a_run(remote, uninterrupted, service, tmp_path, capsys, no_page):
    config, undisturbed = uninterrupted
    before = service.names("whole")
    assert cli.main(train(config, remote)) == 0  # finished: nothing is trained again
    assert "resumed" not in capsys.readouterr().err
    assert cli.main(["eval", f"--workdir={remote}"]) == 0
    evaluated = capsys.readouterr().out
    assert cli.main(["eval", f"--workdir={undisturbed}"]) == 0
    assert evaluated == capsys.readouterr().out
    for workdir, out in ((remote, "gs://whole/export"), (undisturbed, tmp_path / "export")):
        argv = ["export", f"--workdir={workdir}", "--role=student", "--variant=kd", f"--out={out}"]
        assert cli.main(argv) == 0
    copy = service.download("whole", tmp_path / "copy", "export/")
    for name in ("model.safetensors", "config.json"):
        assert (copy / name).read_bytes() == (tmp_path / "export" / name).read_bytes()
    refused(capsys, [*argv[:-1], "--out=gs://whole/export"], "already holds model.safetensors")
    assert cli.main(["report", remote, "--out=gs://whole/page.md"]) == 0
    assert cli.main(["report", remote, f"--out={tmp_path}/page.md"]) == 0
    assert service.read("whole", "page.md") == (tmp_path / "page.md").read_bytes()
    added = {n for n in service.names("whole") if n not in before}
    assert added == {"export/model.safetensors", "export/config.json", "page.md"}


def test_killed_and_resumed_on_another_machine(uninterrupted, service, tmp_path):
    config, undisturbed = uninterrupted
    address = service.create("killed") + "/run"
    died = run(train(config, address), "save", 3)
    assert died.returncode == -signal.SIGKILL, died.stderr
    ended = run(train(config, address))
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "was left by another process" in ended.stderr
    assert "resumed from step " in ended.stderr
    assert_same(service.download("killed", tmp_path / "run", "run/"), undisturbed)
