"""A run whose data change: nothing goes on with them unless it is allowed."""

import json

import numpy as np
import pytest

from kdjax import cli
from kdjax.experiment.build.build import build
from kdjax.experiment.commands import overrides
from tests.data import fakes
from tests.faults.commands import base, experiment, refused, train

ARRAYS = fakes.arrays()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The config, the workdir and the .npz of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    path = folder / "set.npz"
    fakes.write_npz(path)
    table = {"name": "npz", "path": str(path)}
    config = experiment(folder, base(data=table, num_steps=2, roles__student=None))
    assert cli.main(train(config, folder / "run")) == 0
    return config, folder / "run", path


# what happens to the .npz -> (changes, words of the line)
CHANGES = {
    "one label": (
        {"y_train": np.r_[1, ARRAYS["y_train"][1:]]},
        ("train labels: 'int32 [36] ",),
    ),
    "shorter": (
        {"x_test": ARRAYS["x_test"][:-1], "y_test": ARRAYS["y_test"][:-1]},
        ("test images: 'uint8 [13, 6, 5, 3] ", "-> 'uint8 [12, 6, 5, 3] "),
    ),
    "names": ({"class_names": np.array(["b", "a", "c", "d"])}, ("class names: '4 lines ",)),
}


@pytest.mark.parametrize(("changes", "words"), CHANGES.values(), ids=CHANGES)
def test_changed_data_are_refused(changes, words, run, tmp_path, capsys):
    config, workdir, path = run
    fakes.write_npz(path, **changes)
    words = (f"workdir {workdir} contains a run with other data", *words, "--allow-changed-data")
    where = f"--workdir={workdir}"
    out = tmp_path / "out"
    for argv in (
        train(config, workdir),
        ["eval", where],
        ["export", where, "--role=teacher", f"--out={out}"],
        ["bounds", where],
    ):
        refused(capsys, argv, *words, keep=workdir)
    assert not out.exists()
    fakes.write_npz(path)
    assert cli.main(["eval", where]) == 0


def test_changed_data_may_be_allowed(run, capsys):
    config, workdir, path = run
    fakes.write_npz(path, y_test=np.roll(ARRAYS["y_test"], 1))
    before = (workdir / "config.json").read_bytes()
    allow = "--allow-changed-data"
    with pytest.warns(UserWarning, match="contains a run with other data: test labels"):
        assert cli.main(["eval", f"--workdir={workdir}", allow]) == 0
    with pytest.warns(UserWarning, match="contains a run with other data: test labels"):
        assert cli.main(train(config, workdir, allow)) == 0
    assert (workdir / "config.json").read_bytes() == before  # what it began with


def test_a_workdir_without_a_digest_opens(run, tmp_path):
    _, workdir, path = run
    fakes.write_npz(path, y_test=np.roll(ARRAYS["y_test"], 1))
    file = workdir / "config.json"
    whole = file.read_bytes()
    content = json.loads(whole)
    del content["data"]
    file.write_text(json.dumps(content))
    assert cli.main(["eval", f"--workdir={workdir}"]) == 0
    file.write_bytes(whole)


@pytest.mark.parametrize("digest", [5, ["a"], "text"])
def test_a_digest_that_is_none(digest, run, capsys):
    _, workdir, path = run
    fakes.write_npz(path)
    file = workdir / "config.json"
    whole = file.read_bytes()
    file.write_text(json.dumps({**json.loads(whole), "data": digest}))
    refused(capsys, ["eval", f"--workdir={workdir}"], "other data")
    file.write_bytes(whole)


def test_broken_pictures_are_found_before_a_run_begins(tmp_path, capsys):
    for split in ("train", "test"):
        fakes.write_pictures(tmp_path / "set" / split)
    file = tmp_path / "set" / "test" / "bee" / "4.png"
    file.write_bytes(file.read_bytes()[:-30])
    table = {"name": "folder", "path": str(tmp_path / "set"), "on_device": False}
    config = experiment(tmp_path, base(data=table, batch_size=4, num_steps=1, roles__student=None))
    refused(capsys, train(config, tmp_path / "run"), "test/bee/4.png", "data.unreadable=skip")
    assert not (tmp_path / "run").exists()
    flags = ("--config.data.unreadable=skip",)
    with pytest.warns(UserWarning, match=r"1 unreadable pictures were skipped: .*/4.png$"):
        assert cli.main(train(config, tmp_path / "run", *flags)) == 0


@pytest.mark.parametrize("value", ["1.0", "300.0", "1.5", "-1", "-.5", "1e9", "nan"])
def test_shares_that_are_none(value, tmp_path, capsys):
    config = experiment(tmp_path, base(data={"name": "digits", "validation": 0.1, "test": 0.2}))
    for key in ("validation", "test"):
        argv = train(config, tmp_path / "run", f"--config.data.{key}={value}")
        refused(capsys, argv, f"data.{key}")


def test_a_count_on_the_command_line_is_a_count(tmp_path):
    config = experiment(tmp_path, base(data={"name": "digits", "validation": 0.1}))
    flags = ("--config.data.validation=300", "--config.data.test=200")
    source = build(overrides.read(str(config), flags).config).source
    assert source.size == {"train": 1297, "validation": 300, "test": 200}
