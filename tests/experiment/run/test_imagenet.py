"""The ImageNet path end to end: tfds, resized crops, label smoothing, bfloat16, many devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import special

from kdjax import cli, data
from kdjax.errors import UserError
from kdjax.experiment.build import build
from kdjax.report import tables
from kdjax.train.step import init_state, make_step
from kdjax.types import Variables
from tests.faults.commands import experiment, train

BASE = {
    "seed": 1,
    "num_steps": 2,
    "batch_size": 16,
    "eval_batch_size": 16,
    "log_every": 1,
    "eval_every": 1,
    "checkpoint_every": 0,
    "devices": 8,
    "tensorboard": False,
    "data": {"name": "imagenet2012", "validation": 8, "image_size": 12},
    "roles": {
        "student": {
            "model": {"name": "cnn", "widths": (4,)},
            "terms": {"ce": {"label_smoothing": 0.1}},
        }
    },
}
BASE["data"]["augment"] = "resized_crop_flip"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Return the metrics of the same run for each layout over devices."""
    ways = {
        "one": {"devices": 1},
        "pmap": {"parallel": "pmap"},
        "mesh in bfloat16": {"parallel": "mesh", "precision": "bfloat16"},
    }
    results = {}
    for name, over in ways.items():
        folder = tmp_path_factory.mktemp("imagenet")
        settings = {**BASE, **over, "data": {**BASE["data"], "path": str(folder)}}
        with tfds.testing.mock_data(num_examples=40), pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "show_tables", lambda report: None)
            assert cli.main(train(experiment(folder, settings), folder / "run")) == 0
        text = (folder / "run" / "metrics.jsonl").read_text()
        results[name] = [json.loads(line) for line in text.splitlines()]
    return results


def test_imagenet_trains_and_evaluates(metrics):
    for rows in metrics.values():
        seen = {(row["split"], row["step"]) for row in rows}
        assert {("train", 1), ("train", 2), ("validation", 2), ("test", 2)} <= seen
        for row in rows:
            assert all(np.isfinite(v) for v in row.values() if isinstance(v, float))
        # 1,000 classes, two small steps: near log(1000) = 6.9
        assert all(5 < row["student/ce/raw"] < 12 for row in rows if row["split"] == "train")


def test_eight_devices_equal_one(metrics):
    for one, many in zip(metrics["one"], metrics["pmap"], strict=True):
        for name in ("student/ce/raw", "student/nll", "student/grad_norm"):
            if name in one:
                # the mean of 16 float32 losses in another order, over two steps
                assert many[name] == pytest.approx(one[name], rel=1e-4)


def test_bfloat16_is_close_to_float32(metrics):
    for one, half in zip(metrics["one"], metrics["mesh in bfloat16"], strict=True):
        if one["split"] == "train":
            # 8 bits of mantissa in two layers of a network whose loss is about 7
            assert half["student/ce/raw"] == pytest.approx(one["student/ce/raw"], rel=0.02)
            assert half["student/ce/raw"] != one["student/ce/raw"]


def test_label_smoothing_can_be_swept():
    path = "roles.student.terms.ce.label_smoothing"
    settings = {
        **BASE,
        "devices": 1,
        "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 5},
        "roles": {"student": {"model": {"name": "mlp", "hidden": (3,)}, "terms": {"ce": {}}}},
        "sweep": {path: (0.0, 0.3)},
    }
    run = build.build(settings)
    variant, batch = run.variants[0], run.prepare_eval(next(run.source.evals["test"]()))
    method, key = variant.method(None), jax.random.key(0)
    start = method.init(key, batch)["student"]
    params, stats = {"student": start.params}, {"student": start.stats}
    outputs, _ = variant.players["student"].model.apply(start, batch, train=True)
    log_p = special.log_softmax(np.asarray(outputs.logits, np.float64), axis=-1)
    real, label = np.asarray(batch["mask"]) > 0, np.asarray(batch["label"])
    results = jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *variant.hparams)
    losses, _ = jax.vmap(lambda h: method.loss(params, stats, batch, h, key))(results)
    for loss, e in zip(losses, (0.0, 0.3), strict=True):
        target = (1 - e) * np.eye(5)[label] + e / 5
        assert float(loss) == pytest.approx(-(target * log_p).sum(-1)[real].mean(), rel=1e-5)
    with pytest.raises(UserError, match=r"ce\.label_smoothing is 1; it must be >= 0 and < 1"):
        build.build({**settings, "sweep": {path: (1.0,)}})


def test_bfloat16_is_for_computation_only():
    """State and metrics are float32; the test traces shapes and compiles nothing."""
    settings = {
        **BASE,
        "devices": 1,
        "precision": "bfloat16",
        "data": {"name": "synthetic", "shape": (64, 64, 3), "augment": "resized_crop_flip"},
        "roles": {
            "student": {
                "model": {"name": "ResNet18", "stem": "imagenet"},
                "optimizer": {"learning_rate": 0.1, "momentum": 0.9},
                "terms": {"ce": {"label_smoothing": 0.1}},
            }
        },
    }
    run = build.build(settings)
    variant = run.variants[0]
    method = variant.method(None)
    raw = data.example_batch(run.source, 4)
    state = jax.eval_shape(
        lambda key: init_state(
            method, variant.optimizers, key, run.prepare_eval(raw), variant.hparams[0]
        ),
        jax.random.key(0),
    )
    step = make_step(method, variant.optimizers, prepare=run.prepare_train)
    program, (new, reported) = jax.make_jaxpr(step, return_shape=True)(state, raw)
    kept_by_step = (new.params, new.stats, new.opt, new.hparams, reported)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(kept_by_step)}
    assert kinds <= {jnp.dtype("float32"), jnp.dtype("int32")}
    convolved = [line for line in str(program).splitlines() if "= conv_general_dilated" in line]
    assert len(convolved) > 17
    assert all(":bf16[" in line.split("=")[0] for line in convolved)
    outputs, _ = jax.eval_shape(
        lambda s: variant.players["student"].model.apply(
            Variables(s.params["student"], s.stats["student"]),
            run.prepare_eval(raw),
            train=True,
        ),
        state,
    )
    assert outputs.logits.dtype == outputs.features["pooled"].dtype == jnp.float32
    assert outputs.features["stage1"].dtype == jnp.bfloat16
