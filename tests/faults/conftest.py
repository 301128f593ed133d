"""An uninterrupted run, shared by the fault tests."""

import pytest

from kdjax import cli
from tests.faults.commands import experiment, train
from tests.faults.runs import TINY


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
