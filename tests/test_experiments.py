"""Every file of experiments/ is documented and complete, and runs two steps."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, models
from kdjax.experiment.build import build
from kdjax.experiment.build import data as experiment_data
from kdjax.experiment.commands import overrides, study
from kdjax.experiment.config import resolve, schema
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.models.io import export as model_export
from tests.data import tiny_coco, tiny_text

ROOT = pathlib.Path(__file__).resolve().parents[1]
ALL = sorted(p for p in (ROOT / "experiments").glob("*.py") if p.name[0] != "_")
STUDIES = [p for p in ALL if '"study": "' in p.read_text()]  # studies train nothing
FILES = [p for p in ALL if p not in STUDIES]
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
ROLE_KEYS = ("model.name", "checkpoint", "optimizer.learning_rate")
SETS = {
    "cifar": ((32, 32, 3), 10),
    "imagenet": ((64, 64, 3), 200),
    "npz": ((28, 28, 1), 10),
    "fashion": ((28, 28, 1), 10),
}

# six to twelve seconds each; others of the short suite have similar programs
SLOW = {
    "coco_kdpp": "test_detection.py",
    "coco_local": "test_detection.py",
    "superglue_sinkd": "test_text.py",
    "text_local_sinkd": "test_text.py",
    "glue_sinkd": "test_text.py",
    "minilm_teacher": "test_text.py",
    "minilm_sinkd": "test_text.py",
    "fashion_all": "digits_offline",
    "omniglot_wdm": "test_representation.py",
    "digits_wdm_kd": "test_dependency.py",
    "cifar10_jpeg_compare": "digits_compare",
    "cifar10_jpeg_offline": "digits_offline",
    "cifar100_bdkd": "cifar10_bdkd",
    "imagenet_bdkd": "cifar10_bdkd",
    "lm_cross_tokenizer": "test_language_model.py",
    "lm_kd": "test_language_model.py",
    "tiny_imagenet_bdkd": "cifar10_bdkd",
}
SLOW_TO_BUILD = {"coco_kdpp": "coco_local", "superglue_sinkd": "glue_sinkd"}


def paths(slow=()):
    """Parametrize a test by the files, of which `slow` are long."""
    marks = [pytest.param(p, marks=pytest.mark.long) if p.stem in slow else p for p in FILES]
    return pytest.mark.parametrize("path", marks, ids=lambda p: p.stem)


each = paths()


def test_experiments_exist():
    assert {*SLOW, *SLOW_TO_BUILD} <= {path.stem for path in FILES}
    assert len(FILES) >= 8


def has(table, path):
    for part in path.split("."):
        if part not in table:
            return False
        table = table[part]
    return True


@each
def test_the_docstring_has_command_time_and_result(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(text.split("\n")[0]) <= 100
    assert f"python -m kdjax train --config=experiments/{path.name}" in text
    assert "--workdir=runs/" in text
    for word in ("Expected time:", "Expected result:"):
        assert word in text
        assert text.split(word)[1].strip()


@each
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_the_pinned_keys_exist(path, arg):
    config = overrides.read(f"{path}:{arg}", []).config
    assert not [key for key in PINNED if not has(config, key)]
    assert config["roles"]
    for role, player in config["roles"].items():
        assert not [key for key in ROLE_KEYS if not has(player, key)], role
        for term, scalars in player["terms"].items():
            assert "weight" in scalars, (role, term)


def placeholders(table, path=""):
    """Yield keys without a value; in a variant, None removes a key of the others."""
    for key, value in table.items():
        if value is None or (key in ("variants", "sweep") and not value):
            yield f"{path}{key}"
        elif isinstance(value, dict) and key != "variants":
            yield from placeholders(value, f"{path}{key}.")


@each
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_an_experiment_sets_no_defaults(path, arg):
    _, plain = overrides._load(path, arg)
    assert not list(placeholders(plain))
    stated = [key for key in ("seed", "parallel") if key in plain]
    assert not [key for key in stated if plain[key] == schema.Config.model_fields[key].default]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_study_is_documented_and_its_inequalities_hold(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(text.split("\n")[0]) <= 100
    assert f"python -m kdjax study --config=experiments/{path.name} --out=runs/" in text
    for word in ("Expected time:", "Expected result:"):
        assert text.split(word)[1].strip()
    full, small = (overrides.read_study(f"{path}:{arg}", []).config for arg in ("", "smoke"))
    assert list(full) == list(small)
    results = study.compute(small)
    assert not results.broken
    assert results.panels


def stand_in_texts(folder, config):
    """Replace the data by a folder of a few lines, and the networks by narrow ones."""
    files = {"path": str(tiny_text.write(folder, config["data"]["task"])), "validation": 0.2}
    config["data"] |= {**files, "vocabulary": None, "tokenizer": None, "vocabulary_size": 64}
    config["eval_batch_size"] = 8
    config["batch_size"] = min(config["batch_size"], 16)
    for role in config["roles"].values():
        narrow = {"vocab_size": 64, "width": role["model"]["num_heads"], "ffn_width": 8}
        role["model"] = {**role["model"], **narrow}


def stand_in_teacher(folder, role, metadata):
    """Write an export of zeros with the right shapes."""
    options = {key: value for key, value in role["model"].items() if key != "name"}
    is_language_model = metadata.get("task") == data.LANGUAGE_MODEL
    build_model = models.build_language_model if is_language_model else models.build
    model = build_model(role["model"]["name"], num_classes=metadata["num_classes"], **options)
    reads = metadata.get("inputs") or {"image": (metadata["shape"], "float32")}
    batch = {name: jnp.zeros((1, *shape), dtype) for name, (shape, dtype) in reads.items()}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    model_export.save(folder, zeros, {**metadata, "model": role["model"]})
    return str(folder)


def stand_in_backbone(folder, detector, metadata):
    """Write an export of the classifier that a detector's backbone is made from."""
    classifier = {"name": detector["model"]["backbone"], "stem": "imagenet"}
    as_classifier = {**metadata, "task": "classification", "inputs": None}
    return stand_in_teacher(folder, {"model": classifier}, as_classifier)


@paths(SLOW_TO_BUILD)
def test_the_full_config_builds(path, tmp_path):
    """Data and teachers may not be on this disk; stand-ins of the same shape replace them."""
    config = overrides.read(str(path), ["--config.devices=1"]).config
    if config["data"]["name"] == "text":
        stand_in_texts(tmp_path, config)
        metadata = experiment_data.load(resolve.from_dict(config))[0].spec._asdict()
    elif config["data"]["name"] in data.PAIRS:
        config["data"] |= {"name": "pairs_digits", "path": None, "tile_size": 8}
    elif config["data"]["name"] == "lm":
        small = {"limit": 4, "validation": 2, "test": 2, "bpe_size": 300, "tokenizer": None}
        config["data"] |= {**small, "path": "stdlib"}
        if config["data"]["second_bpe_size"]:
            config["data"]["second_bpe_size"] = 290
        for role in config["roles"].values():
            role["model"] |= {"width": 16, "num_heads": 2, "num_layers": 1, "vocab_size": 300}
        loaded = experiment_data.load(resolve.from_dict(config))
        metadata = loaded.source.spec._asdict()
        loaded.task.save_files(loaded.dataset, tmp_path / "teacher")
    elif config["data"]["name"] == "coco":
        stand_in = {"path": str(tiny_coco.write(tmp_path)), "validation": 2, "workers": 0}
        # tracing at the full size takes a minute
        config["data"] |= {**stand_in, "image_size": 64}
        config["batch_size"] = 2
        metadata = experiment_data.load(resolve.from_dict(config))[0].spec._asdict()
        student = config["roles"]["student"]
        if student["model"].get("frozen_stages"):
            student["backbone"] = stand_in_backbone(tmp_path / "backbone", student, metadata)
    else:
        if config["data"]["name"] != "digits":
            shape, classes = next(entry for part, entry in SETS.items() if part in path.name)
            stand_in = {"name": "synthetic", "shape": shape, "num_classes": classes}
            config["data"] = {**config["data"], **stand_in, "path": None, "workers": 0}
            config["data"] |= {"image_size": None, "validation": 0.1}
        metadata = {key: config["data"][key] for key in ("num_classes", "shape")}
    moved = {
        r for role in config["roles"].values() if role["moves"] == "both" for r in role["between"]
    }
    frozen = {name for name, role in config["roles"].items() if not role["terms"]} - moved
    waits = bool(frozen)  # for a checkpoint
    for name, role in config["roles"].items():
        if name in frozen and not config["variants"]:
            role["checkpoint"] = stand_in_teacher(tmp_path / name, role, metadata)
    config["variants"] = dict(list(config["variants"].items())[: 1 if waits else 2])
    assert build.build(config).variants


def test_the_smallest_student_of_fashion_has_a_hundredth():
    path = pathlib.Path(__file__).parents[1] / "experiments/fashion_all.py"
    config = overrides.read(f"{path}:hundredth,alone", ["--config.devices=1"]).config
    shape, classes = SETS["fashion"]
    config["data"] = {"name": "synthetic", "shape": shape, "num_classes": classes}
    (variant,) = build.build(config).variants
    assert 100 * variant.parameters["student"] < variant.parameters["teacher"]


@paths(SLOW)
def test_two_steps(path, tmp_path):
    config = overrides.read(f"{path}:smoke", ["--config.devices=1"]).config
    assert config["num_steps"] == 2
    names = ("synthetic", "digits", "text", "pairs_synthetic", "coco", "lm")
    assert config["data"]["name"] in names
    if config["data"]["name"] == "coco":
        config["data"]["path"] = str(tiny_coco.write(tmp_path))
    if config["data"]["name"] == "text":
        config["data"]["path"] = str(tiny_text.write(tmp_path, config["data"]["task"]))
    names = list(config["variants"])
    config["variants"] = {name: config["variants"][name] for name in names[:1] + names[1:][-1:]}
    run = build.build(config)
    for variant in run.variants:
        if variant.from_variant:
            continue  # needs weights; tested elsewhere with a checkpoint
        program, state = make_program(
            run, MemberGroup(variant, tuple(range(len(variant.members)))), {}
        )
        before = jax.device_get(state.params)
        state = program.layout.place(state)
        batches = device_batches(run, program, 0)
        for _ in range(2):
            state, metrics = program.step(state, next(batches))
        for name, values in program.layout.read(metrics).items():
            assert np.isfinite(values).all(), name
        after = jax.device_get(program.layout.fetch(state).params)
        for role in program.method.trains:
            moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before[role], after[role])
            assert any(jax.tree.leaves(moved)), role
