"""An uninterrupted run, shared by the fault tests."""

import subprocess

import pytest

from kdjax import cli
from tests.faults.commands import experiment, train
from tests.faults.runs import TINY

LARGE = "20m"  # of a disk: room for everything


@pytest.fixture
def disk(tmp_path):
    """Mount a disk; return its folder and a function that resizes it."""
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


@pytest.fixture
def no_page(monkeypatch):
    """Skip the page of a run, which takes longer than the training."""
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Return the config and the finished workdir of `runs.TINY`; tests must not write to it."""
    folder = tmp_path_factory.mktemp("whole")
    config = experiment(folder, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(config, folder / "run")) == 0
    return config, folder / "run"


@pytest.fixture(scope="session")
def remote(uninterrupted, service):
    """Return the address of the run of `uninterrupted`; tests must not write to it."""
    address = service.create("whole") + "/runs/tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(uninterrupted[0], address)) == 0
    return address
