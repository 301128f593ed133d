"""Every file of experiments/: documented, complete, and good for two steps."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import build, exports, flags, models
from kdjax.program import feed, make_program

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(p for p in (ROOT / "experiments").glob("*.py") if p.name[0] != "_")
PINNED = (
    "seed",
    "num_steps",
    "batch_size",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "parallel",
    "data.name",
    "data.path",
    "roles",
    "variants",
    "sweep",
)
OF_A_ROLE = ("model.name", "checkpoint", "optimizer.learning_rate")
SETS = {"cifar": ((32, 32, 3), 10), "imagenet": ((64, 64, 3), 200), "npz": ((28, 28, 1), 10)}

each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def test_there_are_some():
    assert len(FILES) >= 8


def has(table, path):
    for part in path.split("."):
        if part not in table:
            return False
        table = table[part]
    return True


@each
def test_the_docstring_tells_command_time_and_result(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(text.split("\n")[0]) <= 100
    assert f"python -m kdjax train --config=experiments/{path.name}" in text
    assert "--workdir=runs/" in text
    for word in ("Expected time:", "Expected result:"):
        assert word in text
        assert text.split(word)[1].strip()


@each
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_the_pinned_keys_are_there(path, arg):
    _, given = flags._load(path, arg)
    assert not [key for key in PINNED if not has(given, key)]
    assert given["roles"]
    for role, player in given["roles"].items():
        assert not [key for key in OF_A_ROLE if not has(player, key)], role
    whole = flags.read(f"{path}:{arg}", []).config
    for role, player in whole["roles"].items():
        for term, said in player["terms"].items():
            assert "weight" in said, (role, term)


def stand_in_teacher(folder, said, data):
    """An export of the right shapes, all zeros."""
    options = {key: value for key, value in said["model"].items() if key != "name"}
    model = models.build(said["model"]["name"], num_classes=data["num_classes"], **options)
    batch = {"image": jnp.zeros((1, *data["shape"]))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    about = {key: data[key] for key in ("num_classes", "shape")}
    exports.save(folder, zeros, {**about, "model": said["model"]})
    return str(folder)


@each
def test_the_full_config_is_sound(path, tmp_path):
    """Everything but data and teachers, which may not be on this disk: stand-ins of their shape."""
    config = flags.read(str(path), ["--config.devices=1"]).config
    if config["data"]["name"] != "digits":
        shape, classes = next(found for part, found in SETS.items() if part in path.name)
        stand_in = {"name": "synthetic", "shape": shape, "num_classes": classes}
        config["data"] = {**config["data"], **stand_in, "path": None, "workers": 0}
        config["data"] |= {"image_size": None, "validation": 0.1}
    waits = any(not role["terms"] for role in config["roles"].values())  # for a checkpoint
    for name, role in config["roles"].items():
        if not role["terms"] and not config["variants"]:
            role["checkpoint"] = stand_in_teacher(tmp_path / name, role, config["data"])
    config["variants"] = dict(list(config["variants"].items())[: 1 if waits else 2])
    assert build.build(config).variants


@each
def test_two_steps(path):
    config = flags.read(f"{path}:smoke", ["--config.devices=1"]).config
    assert config["num_steps"] == 2
    assert config["data"]["name"] in ("synthetic", "digits")
    names = list(config["variants"])
    config["variants"] = {name: config["variants"][name] for name in names[:1] + names[1:][-1:]}
    run = build.build(config)
    for variant in run.variants:
        if variant.from_variant:
            continue  # needs weights: the same program as with a checkpoint, tested elsewhere
        program, state = make_program(run, variant, range(len(variant.members)), {})
        before = jax.device_get(state.params)
        state = program.layout.place(state)
        batches = feed(run, program, 0)
        for _ in range(2):
            state, metrics = program.step(state, next(batches))
        for name, values in program.layout.read(metrics).items():
            assert np.isfinite(values).all(), name
        after = jax.device_get(program.layout.fetch(state).params)
        for role in program.method.trains:
            moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before[role], after[role])
            assert any(jax.tree.leaves(moved)), role
