"""An exported network is unchanged in the next run and in user code."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import calibration, cli, models
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.models.io import export as model_export
from tests.data import fakes
from tests.faults.commands import base, experiment, refused, train
from tests.faults.runs import read_state

TEMPERATURE = "roles.student.terms.balanced_kl.temperature"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a sweep of two, a student with adapter and batch norm: (workdir, report, out)."""
    folder = tmp_path_factory.mktemp("trained")
    settings = base(
        num_steps=12,
        roles__student__model={"name": "cnn", "widths": (4, 6)},
        roles__student__adapters={
            "wide": {"kind": "linear", "layer": "pooled", "width": 8},
            "nd": {"kind": "norm_direction", "layer": "pooled", "width": 8},
        },
        roles__student__terms__feature_mse={"toward": "teacher", "own_layer": "wide"},
        roles__student__terms__relational_distance={"toward": "teacher", "own_layer": "nd"},
        sweep={TEMPERATURE: (1.0, 3.0)},
    )
    config = experiment(folder, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(config, folder / "run")) == 0
    for role, member in (("teacher", 0), ("student", 1)):
        export(folder / "run", role, folder / role, f"--member={member}")
    report = json.loads((folder / "run" / "report.json").read_text())
    return folder / "run", report, folder


@pytest.fixture
def no_page(monkeypatch):
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")


def export(workdir, role, out, *flags):
    argv = ["export", f"--workdir={workdir}", f"--role={role}", f"--out={out}", *flags]
    assert cli.main(argv) == 0


def images_of(metadata):
    """Return raw images and labels of the test split, from the export's metadata."""
    source = fakes.load(
        "synthetic",
        batch_size=8,
        shape=tuple(metadata["shape"]),
        num_classes=metadata["num_classes"],
    )
    rows = [
        {key: value[batch["mask"] > 0] for key, value in batch.items()}
        for batch in source.evals["test"]()
    ]
    return tuple(np.concatenate([row[key] for row in rows]) for key in ("image", "label"))


@pytest.mark.parametrize(("role", "member"), [("teacher", 0), ("student", 1)])
def test_restored_logits_have_the_scores_of_the_run(role, member, trained):
    _, report, folder = trained
    model, variables, metadata = model_export.restore(folder / role)
    images, labels = images_of(metadata)
    mean, std = np.array(metadata["mean"]), np.array(metadata["std"])
    batch = {"image": ((images / metadata["scale"] - mean) / std).astype(np.float32)}
    outputs, stats = jax.jit(lambda v, b: model.apply(v, b, train=False))(variables, batch)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, variables.stats))
    right = report["variants"][0]["members"][member]["results"]["test"]
    assert np.mean(np.argmax(outputs.logits, -1) == labels) == pytest.approx(
        right[f"{role}/accuracy"], abs=1e-7
    )
    # float32 of another compilation
    nll = np.mean(calibration.negative_log_likelihood(outputs.logits, labels))
    assert nll == pytest.approx(right[f"{role}/nll"], rel=2e-5)
    ece = calibration.expected_calibration_error(outputs.logits, labels)
    assert ece == pytest.approx(right[f"{role}/ece"], rel=1e-4)


def test_exported_arrays_equal_the_checkpoint(trained):
    workdir, _, folder = trained
    _, state, _ = read_state(workdir / "checkpoints" / "default" / "0-1")
    for role, member in (("teacher", 0), ("student", 1)):
        flat = models.from_safetensors(folder / role / "model.safetensors")
        params = state.params[role] if hasattr(state, "params") else state["params"][role]
        own = params.get("network", params)
        paths = jax.tree.leaves_with_path(own)
        assert len([name for name in flat if name.startswith("params/")]) == len(paths)
        for path, stacked in paths:
            name = "/".join(["params", *(p.key for p in path)])
            assert np.array_equal(flat[name], stacked[member])


def test_adapters_are_not_exported(trained):
    _, _, folder = trained
    flat = models.from_safetensors(folder / "student" / "model.safetensors")
    assert not [name for name in flat if "adapter" in name or "network" in name]
    model = models.build("cnn", num_classes=3, widths=(4, 6))
    batch = {"image": np.zeros((1, 4, 4, 1), np.float32)}
    template = jax.eval_shape(model.init, jax.random.key(0), batch)
    models.restore(template, flat)


def test_contents_of_config_json(trained):
    _, _, folder = trained
    metadata = json.loads((folder / "student" / "config.json").read_text())
    assert metadata["format"] == model_export.FORMAT
    assert metadata["model"] == {"name": "cnn", "widths": [4, 6]}
    assert (metadata["role"], metadata["variant"], metadata["member"]) == ("student", "default", 1)
    assert metadata["values"] == {"seed": 0, TEMPERATURE: 3.0}
    assert (metadata["shape"], metadata["num_classes"]) == ([4, 4, 1], 3)
    assert len(metadata["mean"]) == len(metadata["std"]) == 1
    assert metadata["scale"] == 255


def test_the_selected_member_is_the_default(trained, tmp_path):
    workdir, report, _ = trained
    chosen = report["variants"][0]["chosen"]["student"]["members"][0]
    export(workdir, "student", tmp_path / "default")
    export(workdir, "student", tmp_path / "chosen", f"--member={chosen}")
    export(workdir, "student", tmp_path / "other", f"--member={1 - chosen}")
    default, same, other = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("default", "chosen", "other")
    )
    assert default == same != other


def frozen(folder, teacher: pathlib.Path):
    settings = base(
        num_steps=4, roles__teacher__terms={}, roles__teacher__checkpoint=str(teacher), seed=5
    )
    return experiment(folder, settings)


def test_an_export_can_be_the_frozen_teacher_of_a_run(trained, tmp_path, no_page):
    _, before, folder = trained
    config = frozen(tmp_path, folder / "teacher")
    assert cli.main(train(config, tmp_path / "run")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (variant,) = report["variants"]
    teacher = variant["roles"]["teacher"]
    assert not teacher["trains"]
    assert teacher["source"] == f"checkpoint {folder / 'teacher'}"
    old = before["variants"][0]["members"][0]["results"]["test"]
    new = variant["members"][0]["results"]["test"]
    for name in ("accuracy", "nll", "ece"):
        assert new[f"teacher/{name}"] == pytest.approx(old[f"teacher/{name}"], rel=1e-6)
    _, state, record = read_state(tmp_path / "run" / "checkpoints" / "default" / "0-0")
    params = state.params if hasattr(state, "params") else state["params"]
    assert list(params) == ["student"]  # the teacher is recorded by its hash
    assert list(record["frozen"]) == ["teacher"]
    # and it is exported again, bit for bit
    export(tmp_path / "run", "teacher", tmp_path / "again")
    first, again = (
        models.from_safetensors(f / "model.safetensors")
        for f in (folder / "teacher", tmp_path / "again")
    )
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_replaced_teacher_is_an_error(trained, tmp_path, no_page, capsys):
    _, _, folder = trained
    shutil.copytree(folder / "teacher", tmp_path / "given")
    config = frozen(tmp_path, tmp_path / "given")
    assert cli.main(train(config, tmp_path / "run")) == 0
    (tmp_path / "run" / "checkpoints" / "default" / "0-0" / "done.json").unlink()
    path = tmp_path / "given" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    argv = train(config, tmp_path / "run")
    refused(capsys, argv, "roles.teacher", "its weights have changed since this run began")


def test_training_continues_from_an_export(trained, tmp_path, no_page):
    """With a learning rate of 0 the role equals its initial weights."""
    _, _, folder = trained
    teacher = folder / "teacher"
    settings = base(num_steps=2, roles__teacher__checkpoint=str(teacher), roles__student=None)
    settings["roles"]["teacher"]["optimizer"] = {"learning_rate": 0.0}
    assert cli.main(train(experiment(tmp_path, settings), tmp_path / "run")) == 0
    export(tmp_path / "run", "teacher", tmp_path / "again")
    first, again = (
        models.from_safetensors(f / "model.safetensors") for f in (teacher, tmp_path / "again")
    )
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_errors_of_restore_name_the_problem(trained, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        model_export.restore(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=model_export.FORMAT):
        model_export.restore(tmp_path)
    metadata = json.loads((trained[2] / "student" / "config.json").read_text())
    metadata["model"]["widths"] = [4, 7]
    (tmp_path / "config.json").write_text(json.dumps(metadata))
    shutil.copy(trained[2] / "student" / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="of another shape"):
        model_export.restore(tmp_path)
    metadata.pop("num_classes")
    (tmp_path / "config.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="num_classes"):
        model_export.restore(tmp_path)


def test_data_that_differs_from_the_teachers_is_an_error(tmp_path):
    """Size, classes and normalisation are compared; the error contains the flags that fix it."""
    config = {
        "num_steps": 2,
        "batch_size": 8,
        "devices": 1,
        "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3, "validation": 0.2},
        "roles": {
            "teacher": {"model": {"name": "mlp", "hidden": (4,)}, "checkpoint": str(tmp_path)},
            "student": {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}},
        },
    }
    alone = {**config, "roles": {"student": config["roles"]["student"]}}
    spec = build(alone).source.spec
    model = models.build("mlp", num_classes=3, hidden=(4,))
    variables = model.init(jax.random.key(0), {"image": jnp.zeros((1, 4, 4, 1))})
    metadata = {"model": {"name": "mlp", "hidden": (4,)}, **spec._asdict()}
    model_export.save(tmp_path, variables, metadata)
    build(config)
    for change, text in [
        (
            {"shape": (2, 8, 1)},
            r"was trained on images of shape \(4, 4, 1\), but the data has \(2, 8, 1\)",
        ),
        ({"num_classes": 4}, "has 3 classes, but the data has 4"),
        ({"mean": (0.9,)}, r"normalised by mean .* set data.mean=\("),
        ({"std": (0.9,)}, r"normalised by std"),
        ({"std": (0.0,)}, r"data.std is \(0.0,\); it must have 1 numbers"),
    ]:
        with pytest.raises(UserError, match=text):
            build({**config, "data": {**config["data"], **change}})


def test_a_format_of_another_network_is_an_error(trained, tmp_path, capsys):
    workdir, *_ = trained
    argv = ["export", f"--workdir={workdir}", "--role=student", f"--out={tmp_path / 'x'}"]
    refused(capsys, [*argv, "--format=huggingface"], "--format=huggingface", "cnn", "gpt_neo")
    refused(capsys, [*argv, "--format=torch"], "--format=torch", "cnn", "no PyTorch names")
    assert not list(tmp_path.iterdir())
