"""Errors of data sets, images and checkpoints on the command line."""

import numpy as np
import pytest

from kdjax import cli
from tests.data import fakes
from tests.faults.commands import base, experiment, refused, train

NAN = np.where(np.arange(90).reshape(6, 5, 3) == 7, np.nan, 0.5).astype(np.float32)
ARRAYS = fakes.arrays()


def npz(**changes):
    return {**ARRAYS, **changes}


# error -> (arrays of the .npz, words of the line)
SETS = {
    "label too large": (npz(y_test=ARRAYS["y_test"] + 3), ("y_test", "out of range", "[0, 4)")),
    "label negative": (npz(y_train=ARRAYS["y_train"] - 1), ("y_train[0] is -1", "out of range")),
    "labels are fractions": (npz(y_train=ARRAYS["y_train"] / 2), ("y_train", "integers")),
    "nan": (
        npz(x_train=np.stack([NAN] * 40), x_test=np.full((13, 6, 5, 3), 0.5, np.float32)),
        ("x_train[0]", "NaN"),
    ),
    "no examples": (
        npz(x_train=np.zeros((0, 6, 5, 3), np.uint8), y_train=np.zeros(0, int)),
        ("x_train is empty", "at least one"),
    ),
    "sizes differ": (npz(x_test=np.zeros((13, 8, 8, 3), np.uint8)), ("x_train", "x_test")),
    "channels differ": (npz(x_test=np.zeros((13, 6, 5, 1), np.uint8)), ("x_train", "x_test")),
    "labels are missing": (npz(y_train=ARRAYS["y_train"][:5]), ("40 images", "y_train")),
    "a key is missing": ({k: v for k, v in ARRAYS.items() if k != "y_test"}, ("lacks", "y_test")),
}


@pytest.mark.parametrize(("arrays", "words"), SETS.values(), ids=SETS)
def test_errors_in_an_npz(arrays, words, tmp_path, capsys):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    config = experiment(tmp_path, base(data={"name": "npz", "path": str(path)}))
    refused(capsys, train(config, tmp_path / "run"), str(path), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["npz", "idx", "folder", "tiny_imagenet"])
def test_a_missing_path(name, tmp_path, capsys):
    config = experiment(tmp_path, base(data={"name": name, "path": str(tmp_path / "nothing")}))
    refused(capsys, train(config, tmp_path / "run"), "data.path", str(tmp_path / "nothing"))
    unset = experiment(tmp_path, base(data={"name": name}))
    refused(capsys, train(unset, tmp_path / "run"), "data.path is not set")


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    config = experiment(tmp_path, base(data={"name": "folder", "path": str(tmp_path / "set")}))
    refused(capsys, train(config, tmp_path / "run"), str(tmp_path / "set"), "class")


def test_a_set_of_another_shape(tmp_path, capsys):
    config = experiment(tmp_path, base(data={"name": "digits", "shape": (32, 32, 3)}))
    refused(capsys, train(config, tmp_path / "run"), "data.shape is (32, 32, 3)", "(8, 8, 1)")
    config = experiment(tmp_path, base(data={"name": "digits", "num_classes": 12}))
    refused(capsys, train(config, tmp_path / "run"), "data.num_classes is 12", "10 classes")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a trained teacher: mlp (8,) on 4x4x1 images of three classes."""
    folder = tmp_path_factory.mktemp("exported")
    config = experiment(folder, base(num_steps=1, roles__student=None))
    assert cli.main(train(config, folder / "run")) == 0
    export = ["export", f"--workdir={folder / 'run'}", "--role=teacher", f"--out={folder / 'out'}"]
    assert cli.main(export) == 0
    return folder


# difference of the new run -> (changes, words of the line)
MISFITS = {
    "another network": ({"roles__teacher__model": {"name": "cnn"}}, ("holds a mlp", "is cnn")),
    "another width": (
        {"roles__teacher__model__hidden": (7,)},
        ("params/hidden0/kernel", "(16, 8) instead of (16, 7)"),
    ),
    "another depth": (
        {"roles__teacher__model__hidden": (8, 8)},
        ("missing: params/hidden1/bias, params/hidden1/kernel",),
    ),
    "another image size": (
        {"data__shape": (8, 8, 1)},
        ("was trained on images of shape (4, 4, 1)", "the data has (8, 8, 1)"),
    ),
    "another number of channels": (
        {"data__shape": (4, 4, 3)},
        ("was trained on images of shape (4, 4, 1)", "the data has (4, 4, 3)"),
    ),
    "another number of classes": (
        {"data__num_classes": 5},
        ("has 3 classes", "the data has 5"),
    ),
}


@pytest.mark.parametrize(("changes", "words"), MISFITS.values(), ids=MISFITS)
def test_a_mismatched_checkpoint(changes, words, exported, tmp_path, capsys):
    folder = str(exported / "out")
    frozen = {"roles__teacher__terms": {}, "roles__teacher__checkpoint": folder}
    config = experiment(tmp_path, base(**frozen, **changes))
    argv = train(config, tmp_path / "run")
    refused(capsys, argv, "roles.teacher.checkpoint", folder, *words, keep=exported)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_checkpoint(exported, tmp_path, capsys):
    config = experiment(tmp_path, base(roles__teacher__terms={}))
    where = "--config.roles.teacher.checkpoint="

    def refuse(path, *words):
        argv = train(config, tmp_path / "run", f"{where}{path}")
        refused(capsys, argv, "roles.teacher.checkpoint", *words)

    refuse(tmp_path / "nothing", "config.json", "export")
    refuse(exported / "run", "is the workdir of a run", "kdjax export")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text((exported / "out" / "config.json").read_text())
    refuse(damaged, "model.safetensors")
    contents = (exported / "out" / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(contents[:-9])
    refuse(damaged, "model.safetensors", "not a complete safetensors file")
    (damaged / "config.json").write_text("{")
    refuse(damaged, "config.json")
