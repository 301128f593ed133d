"""scripts/tpu_run.sh: its commands are those of docs/tpu.md, and it restarts after preemptions."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "tpu_run.sh"
PAGE = ROOT / "docs" / "tpu.md"
FLAGS = ["--name=kd", "--zone=us-west4-a", "--config=experiments/digits_bdkd.py"]
# answers with the next line of a file of states, and ends training with the next of statuses
GCLOUD = """#!/usr/bin/env bash
next() { head -n 1 "$1" && sed -i 1d "$1"; }
echo "$*" >> calls
case "$*" in
  *describe*) next states ;;
  *'kdjax train'*) exit "$(next statuses)" ;;
esac
"""


def script(*flags, folder=ROOT, **environment):
    return subprocess.run(
        ["bash", str(SCRIPT), *flags],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def blocks():
    """Return the command lines of each `sh` block of the page."""
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        yield [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def cloud(tmp_path):
    """Return a function that runs the script with a gcloud that answers from lists."""
    for name, text in {"gcloud": GCLOUD, "git": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def run(states, statuses, *flags):
        for name, lines in (("states", states), ("statuses", statuses)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        flags = (*FLAGS, "--accelerator=v6e-16", "--poll=0", "--workdir=gs://bucket/x", *flags)
        done = script(*flags, folder=tmp_path, PATH=path)
        words = ("create", "scp", "pip", "train", "storage", "delete")
        lines = (tmp_path / "calls").read_text().splitlines()
        calls = [next((w for w in words if re.search(rf"\b{w}\b", line)), "") for line in lines]
        assert not (tmp_path / "statuses").read_text(), "train ran less often"
        return done.returncode, [call for call in calls if call], done.stderr

    run.path = path
    return run


def test_a_dry_run_prints_the_commands_of_the_page(cloud, tmp_path):
    documented = list(blocks())
    calls = [lines[0] for lines in documented if lines[0][0] == "scripts/tpu_run.sh"]
    assert len(calls) == 3
    for call in calls:
        done = script("--dry-run", *call[1:], folder=tmp_path, PATH=cloud.path)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "calls").exists()
        printed = [shlex.split(line) for line in done.stdout.splitlines()]
        if printed in documented:
            return
    raise AssertionError(f"no block of {PAGE.name} has the commands\n{done.stdout}")


ONCE = ["create", "scp", "pip", "train"]


def test_a_finished_run_is_copied_and_deleted(cloud):
    status, calls, _ = cloud(["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], [0])
    assert (status, calls) == (0, [*ONCE, "storage", "delete"])


def test_a_preempted_tpu_is_requested_again(cloud):
    status, calls, _ = cloud(["ACTIVE", "SUSPENDED", "ACTIVE"], [75, 0])
    assert (status, calls) == (0, [*ONCE, "delete", *ONCE, "storage", "delete"])


def test_a_stopped_run_starts_again_on_the_same_tpu(cloud):
    status, calls, _ = cloud(["ACTIVE", "ACTIVE"], [75, 0], "--keep")
    assert (status, calls) == (0, [*ONCE, "train", "storage"])


@pytest.mark.parametrize("lost", [1, 255])
def test_a_worker_that_vanished_is_no_failure(lost, cloud):
    states = ["ACTIVE", "SUSPENDING", "SUSPENDED", "ACTIVE"]
    status, calls, _ = cloud(states, [lost, 0], "--keep")
    assert (status, calls) == (0, [*ONCE, "delete", *ONCE, "storage"])


@pytest.mark.parametrize("failed", [1, 2])
def test_a_failed_run_is_not_repeated_and_the_tpu_stays(failed, cloud):
    status, calls, stderr = cloud(["ACTIVE", "ACTIVE"], [failed])
    assert (status, calls) == (failed, ONCE)
    assert "kd still runs and is charged" in stderr


def test_restarts_end(cloud):
    status, calls, _ = cloud(["ACTIVE"] * 3, [75, 75], "--restarts=1")
    assert (status, calls) == (75, [*ONCE, "train"])


def test_wrong_flags_are_errors(cloud):
    done = script(*FLAGS, "--accelerator=v6e-16", PATH=cloud.path)
    assert done.returncode == 2
    assert "--workdir is missing" in done.stderr
    done = script(*FLAGS, "--acelerator=v6e-16", PATH=cloud.path)
    assert "unknown argument --acelerator=v6e-16" in done.stderr


def test_shellcheck_is_silent():
    program = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)
