"""Networks of a user's own files and modules."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.models import user_code
from kdjax.models.io import export

NETWORKS = """
from flax import linen as nn
from flax import nnx
from kdjax.types import Model

class Net(nn.Module):
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.Dense(self.width)(x.reshape(len(x), -1)))

class Nnx(nnx.Module):
    def __init__(self, num_classes, pixels, *, rngs):
        self.layer = nnx.Linear(pixels, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.layer(x.reshape(len(x), -1))

def make(num_classes, **options):
    return Net(num_classes, **options)

READY = Net(3)
NUMBER = 3

def wrong(num_classes):
    return "a text"

def sum_up(a, b, c):
    return a
"""
BATCH = {"image": np.ones((2, 2, 2, 1), np.float32)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    return path


def shapes(model):
    variables = jax.eval_shape(model.init, jax.random.key(0), BATCH)
    return variables, jax.eval_shape(lambda v: model.apply(v, BATCH, train=False)[0], variables)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("Net", {}, 5 * 4 + 5 * 3),
        ("Net", {"width": 2}, 5 * 2 + 3 * 3),
        ("make", {"width": 2}, 5 * 2 + 3 * 3),
        ("READY", {"axis_name": "data"}, 5 * 4 + 5 * 3),
        ("Nnx", {"pixels": 4}, 5 * 3),
    ],
)
def test_a_network_of_a_file(name, options, parameters, file):
    variables, outputs = shapes(models.build(f"{file}:{name}", num_classes=3, **options))
    assert models.parameter_count(variables) == parameters
    assert outputs.logits.shape == (2, 3)


def test_a_network_of_a_module(file, monkeypatch):
    package = file.parent / "own_nets_of_a_test"
    package.mkdir()
    (package / "nets.py").write_text(NETWORKS)
    monkeypatch.chdir(file.parent)
    _, outputs = shapes(models.build("own_nets_of_a_test.nets:Net", num_classes=5))
    assert outputs.logits.shape == (2, 5)


def test_a_file_is_run_once_and_a_line_of_the_log_says_so(file, caplog):
    with caplog.at_level("INFO", "kdjax"):
        first, again = (user_code.load(f"{file}:Net") for _ in range(2))
    assert first is again
    assert f"the code of {file} was run" in caplog.text


def test_an_export_holds_the_file(file, tmp_path):
    name = f"{file}:Net"
    model = models.build(name, num_classes=3, width=2)
    variables = jax.jit(model.init)(jax.random.key(0), BATCH)
    metadata = {"model": {"name": name, "width": 2}, "num_classes": 3, "shape": [2, 2, 1]}
    export.save(tmp_path / "out", variables, metadata)
    file.unlink()
    restored, arrays, _ = export.restore(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, arrays, variables)
    assert jnp.shape(restored.apply(arrays, BATCH, train=False)[0].logits) == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing.py:Net", {}, r"nothing\.py:Net: no file nothing\.py"),
        ("FILE:Nat", {}, r"nets\.py has no 'Nat'; did you mean Net\?"),
        ("FILE:xyzzy", {}, r"has no 'xyzzy'; it defines Net, Nnx, make, wrong, sum_up"),
        ("FILE:Net", {"depth": 2}, r"Net has no option 'depth'; it has width"),
        ("FILE:Nnx", {}, r"Nnx needs the option 'pixels'; set model\.pixels"),
        ("FILE:READY", {"width": 2}, r"READY is no function, so that it takes no option 'width'"),
        ("FILE:NUMBER", {}, r"NUMBER is a int; name a module or a function"),
        ("FILE:wrong", {}, r"wrong returns a str; return a module"),
        ("no_such_module_here:Net", {}, r"no module 'no_such_module_here'"),
    ],
)
def test_one_line_refuses_what_is_no_network(name, options, message, file):
    with pytest.raises(UserError, match=message):
        models.build(name.replace("FILE", str(file)), num_classes=3, **options)


def test_a_file_that_fails_names_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UserError, match=r"bad\.py, line 2 fails: ZeroDivisionError"):
        user_code.load(f"{path}:x")


def test_a_file_is_compiled_as_it_is_now(tmp_path):
    path = tmp_path / "config.py"
    for value in (1, 2):  # texts of one size, within the resolution of the file's time
        path.write_text(f"VALUE = {value}\n")
        os.utime(path, (0, 0))
        assert value == user_code.run_file(path).VALUE
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_postpone_its_annotations(tmp_path):
    text = "from __future__ import annotations\nfrom flax import linen as nn\n\n\n"
    text += "class Net(nn.Module):\n    num_classes: int\n\n    @nn.compact\n"
    text += (
        "    def __call__(self, x):\n        return nn.Dense(self.num_classes)(x.reshape(2, -1))\n"
    )
    (tmp_path / "later.py").write_text(text)
    model = models.build(f"{tmp_path / 'later.py'}:Net", num_classes=3)
    batch = {"image": jnp.ones((2, 2, 2, 1))}
    assert jax.eval_shape(model.init, jax.random.key(0), batch).params
