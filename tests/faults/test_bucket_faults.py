"""Buckets that fail: refused in one line, or survived with the same results."""

import importlib.util
import itertools
import json
import shutil
import signal
import tempfile
import threading
import time

import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.run import lock
from kdjax.report.files import as_path
from tests.faults.commands import base, experiment, refused, train
from tests.faults.runs import assert_same, run
from tests.faults.test_kill import moments

COMMIT = "commit_success.txt"
names = (f"faults-{number}" for number in itertools.count())


@pytest.fixture
def bucket(service):
    """Return the name of a new bucket."""
    name = next(names)
    service.create(name)
    return name


def read_only(method, path):
    return None if method == "GET" else 403


@pytest.mark.parametrize(
    ("fault", "words"),
    [(read_only, "cannot be written"), (lambda *_: 401, "cannot be read"), (None, "no bucket")],
    ids=["read-only", "without credentials", "missing"],
)
def test_refused_in_one_line(fault, words, service, bucket, tmp_path, capsys):
    address = f"gs://{bucket if fault else 'absent'}/run"
    with service.failing(fault):
        argv = train(experiment(tmp_path, base()), address)
        refused(capsys, argv, address, words, keep=tmp_path)
    assert service.names(bucket) == []


def test_without_gcsfs(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gcsfs" else find(n))
    argv = train(experiment(tmp_path, base()), "gs://bucket/run")
    refused(capsys, argv, "pip install 'kdjax[gcs]'", keep=tmp_path)


class Sometimes:
    """A fault of every tenth request, as long as there are some left."""

    def __init__(self, *faults):
        self.left = list(faults)
        self.count = itertools.count(1)

    def __call__(self, method, path):
        uploads = method == "POST" or "alt=media" in path or "/o?" in path
        if not uploads or not self.left or next(self.count) % 10:
            return None
        return self.left.pop(0)


def test_a_bucket_that_fails_for_a_while(service, bucket, tmp_path, no_page):
    config = experiment(tmp_path, base())
    assert cli.main(train(config, tmp_path / "run")) == 0
    fault = Sometimes(503, 429, "cut", 503, "stall")
    with service.failing(fault):
        assert cli.main(train(config, f"gs://{bucket}/run")) == 0
    assert fault.left == []
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert service.read(bucket, "run/metrics.jsonl") == metrics
    assert f"run/checkpoints/default/0-0/4/{COMMIT}" in service.names(bucket)


def test_a_checkpoint_without_its_marker(
    uninterrupted, service, bucket, remote, tmp_path, capsys, no_page
):
    whole = service.download("whole", tmp_path / "whole", "runs/tiny/")
    part = whole / "checkpoints" / "kd" / "0-3"
    for file in (part / "60" / COMMIT, part / "done.json", whole / "report.json"):
        file.unlink()
    service.upload(bucket, whole, "run")
    assert cli.main(train(uninterrupted[0], f"gs://{bucket}/run")) == 0
    assert "kd: resumed from step 50" in capsys.readouterr().err
    assert_same(service.download(bucket, tmp_path / "run", "run/"), uninterrupted[1])


def test_a_damaged_checkpoint(uninterrupted, service, bucket, remote, tmp_path, capsys, no_page):
    whole = service.download("whole", tmp_path / "whole", "runs/tiny/")
    part = whole / "checkpoints" / "kd" / "0-3"
    (part / "done.json").unlink()
    for file in (part / "60" / "state").rglob("*"):
        if file.is_file():  # truncated uploads
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    service.upload(bucket, whole, "run")
    assert cli.main(train(uninterrupted[0], f"gs://{bucket}/run")) == 0
    err = capsys.readouterr().err
    assert "is damaged" in err
    assert "kept as damaged-60" in err
    assert "kd: resumed from step 50" in err
    assert_same(service.download(bucket, tmp_path / "run", "run/"), uninterrupted[1])


def test_a_full_scratch_disk(service, bucket, disk, tmp_path, capsys, monkeypatch, no_page):
    folder, resize = disk
    resize("4k")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    config = experiment(tmp_path, base(num_steps=40, log_every=1, checkpoint_every=5))
    argv = train(config, f"gs://{bucket}/run")
    assert cli.main(argv) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("kdjax: ")]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    resize("20m")
    assert cli.main(argv) == 0
    assert "resumed from step " in capsys.readouterr().err
    assert cli.main(train(config, tmp_path / "run")) == 0
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert service.read(bucket, "run/metrics.jsonl") == metrics


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.5)


def test_of_runs_that_race_for_a_lock_one_gets_it(service, bucket):
    workdir, got, refusals = as_path(f"gs://{bucket}/run"), [], []
    barrier = threading.Barrier(6)

    def race():
        mine = lock.ObjectLock(workdir)
        barrier.wait()
        try:
            mine.take()
            got.append(mine)
        except UserError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(refusals) == 5
    assert all("is in use by another process" in line for line in refusals)
    got[0].release()
    assert service.names(bucket) == []
    with lock.occupy(workdir), pytest.raises(UserError, match="in use"), lock.occupy(workdir):
        pass


def elsewhere(service, bucket, beats=0):
    """Write the lock of a process of another machine."""
    holder = {"machine": "other 1 pid:[1]", "pid": 7, "started": "1", "heartbeat": beats}
    service.write(bucket, "run/.lock", json.dumps(holder).encode())


def test_a_silent_lock_is_taken_over(service, bucket, fast, capsys):
    elsewhere(service, bucket)
    with lock.occupy(as_path(f"gs://{bucket}/run")):
        assert b'"other' not in service.read(bucket, "run/.lock")
    first, second = capsys.readouterr().err.splitlines()
    assert "is locked by another process (other, pid 7); waiting" in first
    assert "was left by another process (other, pid 7); taken over" in second
    assert service.names(bucket) == []


def test_a_lock_with_a_heartbeat_is_not_taken_over(service, bucket, fast):
    ended = threading.Event()

    def beat():
        for beats in itertools.count():
            elsewhere(service, bucket, beats)
            if ended.wait(0.1):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(UserError, match="in use by another process"):
        lock.ObjectLock(as_path(f"gs://{bucket}/run")).take()
    ended.set()
    thread.join()


def test_a_run_whose_lock_was_taken_over_stops(service, bucket, fast, monkeypatch):
    lines, left = [], threading.Event()
    monkeypatch.setattr(lock, "_exit_at_once", lambda line: (lines.append(line), left.set()))
    with lock.occupy(as_path(f"gs://{bucket}/run")):
        elsewhere(service, bucket)
        assert left.wait(30)
    assert "was taken over by another process (other, pid 7)" in lines[0]
    assert service.names(bucket) == ["run/.lock"]  # that of the other process


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1))
def test_killed_at_random_moments(seed, uninterrupted, service, tmp_path):
    """Kill ten times, and resume each time in a new process without any local file."""
    config, undisturbed = uninterrupted
    killed, number, where = 0, 0, moments(seed)
    while killed < 10:
        name = next(names)
        service.create(name)
        argv = train(config, f"gs://{name}/run")
        done = None
        while killed < 10:
            moment = next(where)
            done = run(argv, *moment)
            assert "Traceback" not in done.stderr, (moment, done.stderr)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
            killed += 1
        if done is not None and done.returncode:
            assert run(argv).returncode == 0
        assert_same(service.download(name, tmp_path / name, "run/"), undisturbed)
        shutil.rmtree(tmp_path / name)
        number += 1
