"""The run that nobody disturbed."""

import pytest

from kdjax import cli
from tests.faults.commands import experiment, train
from tests.faults.runs import TINY


@pytest.fixture
def no_page(monkeypatch):
    """Leave out the page of a run, which takes longer than its training here."""
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The config and the finished workdir of `runs.TINY`; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    config = experiment(folder, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(config, folder / "run")) == 0
    return config, folder / "run"
