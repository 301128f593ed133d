"""A detector in a run: on many devices, in a sweep, stopped and resumed."""

import functools
import json

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import train as running
from kdjax.experiment.run.class_means import MeansOptions, class_means
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.experiment.run.results import RunResults
from kdjax.models.io import export as model_export
from kdjax.report.results import to_json
from kdjax.types import Variables
from tests.data import tiny_coco

# float32 sums in another order, amplified by batch norms over few and narrow maps; two steps of SGD
# change the parameters by about .1, so a missing sum over devices would exceed the tolerance
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
DEVICES = 8
LEARNING = {"ce": {}, "box_smooth_l1": {}, "binary_cross_entropy": {}, "anchor_smooth_l1": {}}
NETWORK = {
    "name": "faster_rcnn",
    "backbone": "ResNet10",
    "backbone_options": {"width": 2},
    "pyramid_width": 4,
    "box_width": 8,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "canonical": 56.0,
    "limits": {
        "before": 16, "proposals": 8, "anchors": 8, "regions": 8, "detections": 4, "candidates": 16,
    },
}  # fmt: skip


def config(path, **changes):
    optimizer = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9}
    player = {"model": NETWORK, "optimizer": optimizer}
    return {
        "num_steps": 4,
        "batch_size": DEVICES,
        "eval_batch_size": DEVICES,
        "devices": 1,
        "log_every": 1,
        "checkpoint_every": 2,
        "tensorboard": False,
        "data": {
            "name": "coco", "path": path, "image_size": 64, "max_boxes": 3, "validation": 2,
            "augment": "flip",
        },
        "roles": {"student": {**player, "terms": LEARNING}},
        "sweep": {"seed": (0, 1)},
        "select": {"role": "student", "metric": "ap50"},
        **changes,
    }  # fmt: skip


@functools.cache
def after(path, members, devices=1, steps=2):
    """Return state and metrics of some members on the host after a few steps."""
    run = build(config(path, devices=devices, members_over_devices=False))
    program, state = make_program(run, MemberGroup(run.variants[0], members), {})
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
    state = jax.device_get(program.layout.fetch(state))
    return state, program.layout.read(metrics)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(tiny_coco.write(tmp_path_factory.mktemp("coco"), {"train": 10, "val": 3}))


def assert_close(actual, expected):
    flat = jax.tree_util.tree_flatten_with_path(actual)[0]
    for (where, a), b in zip(flat, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, err_msg=jax.tree_util.keystr(where), **CLOSE)


@pytest.mark.long
def test_members_of_a_sweep_equal_single_runs(path):
    (state, metrics), (one, alone) = after(path, (0, 1)), after(path, (1,))
    second = lambda tree: jax.tree.map(lambda x: np.asarray(x)[1:], tree)  # noqa: E731
    assert_close(second(metrics), alone)
    assert_close(second(state.params), one.params)
    assert_close(second(state.stats), one.stats)


@pytest.mark.long
def test_many_devices_equal_one(path):
    """Sampled regions are equal too: they depend on the image, not on the device."""
    (state, metrics), (one, alone) = after(path, (1,), DEVICES), after(path, (1,))
    assert_close(metrics, alone)
    assert_close(state.params, one.params)
    assert_close(state.stats, one.stats)


def test_class_means_are_over_regions_and_include_background(path):
    run = build(config(path))
    _program, state = make_program(run, MemberGroup(run.variants[0], (1,)), {})
    variables = jax.tree.map(lambda x: x[0], (state.params["student"], state.stats["student"]))
    model = run.variants[0].players["student"].model
    means = class_means(model, Variables(*variables), run.source, MeansOptions(augment="flip"))
    assert means.shape == (3, 8)
    # by hand: all rows of all images
    total, count = np.zeros((3, 8)), np.zeros(3)
    find = jax.jit(lambda b: model.apply(Variables(*variables), b, train=False)[0])
    for batch in run.source.evals["train"]():
        ready = run.prepare_train(dict(batch), jax.random.key(0))
        features = jax.device_get(find(ready).features)
        real = features["row_mask"] > 0
        np.add.at(total, features["row_label"][real], features["pooled"][real])
        np.add.at(count, features["row_label"][real], 1)
    assert count[2] > count[0] > 0
    np.testing.assert_allclose(means, total / count[:, None], rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_a_resumed_run_equals_an_uninterrupted_one(path, tmp_path):
    """The results are equal bit for bit, including average precision."""
    pytest.importorskip("pycocotools", reason="the last step measures average precision")
    settings = config(path, sweep={"seed": (1,)}, eval_every=3)
    settings["data"]["judge_train"] = True
    uninterrupted = running.train(build(settings), tmp_path / "whole", lambda line: None)
    run = build(settings)
    source = run.source

    def train(step, seed):
        for number, batch in enumerate(source.train(step, seed), start=step):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    stopped = run._replace(data=run.data._replace(source=source._replace(train=train)))
    with pytest.raises(KeyboardInterrupt):
        running.train(stopped, tmp_path / "part", lambda line: None)
    lines: list[str] = []
    again = running.train(build(settings), tmp_path / "part", lines.append)
    assert any("resumed from step 2" in line for line in lines)
    assert to_json(uninterrupted[0].members) == to_json(again[0].members)  # NaN is written as null
    texts = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "part")]
    assert texts[0] == texts[1]
    scored = [json.loads(line) for line in texts[0].splitlines()]
    curve = [line for line in scored if line["split"] == "test_train"]
    assert [line["step"] for line in curve] == [3, 4]  # during training, and at its end
    assert all(0 <= line["student/ap50"] <= 1 for line in curve)
    results = uninterrupted[0].members[0].results["test"]
    assert {"student/ap", "student/ap50", "student/detection_ece"} <= set(results)


@pytest.mark.parametrize("guide", ["nobody", "student"])
def test_regions_of_an_unknown_role_are_an_error(path, guide):
    table = config(path)
    table["roles"] = {"student": {**table["roles"]["student"], "regions": guide}}
    with pytest.raises(UserError, match=f"regions names '{guide}'"):
        build(table)


@pytest.mark.parametrize(
    ("term", "match"),
    [
        ({"forward_kl": {}}, "student and teacher draw different regions; set roles.teacher.regi"),
        ({"relational_distance": {}}, "compares all rows of 'pooled' with each other"),
    ],
)
def test_terms_that_mix_up_regions_are_refused(path, term, match):
    table = config(path)
    student, (name, keys) = table["roles"]["student"], *term.items()
    toward = {name: {"toward": "teacher", **keys}}
    table["roles"] = {"teacher": student, "student": {**student, "terms": {**LEARNING, **toward}}}
    with pytest.raises(UserError, match=match):
        build(table)
    if name == "forward_kl":
        table["roles"]["teacher"]["regions"] = "student"
        assert build(table).variants[0].players["teacher"].shares


def test_random_weights_have_no_frozen_parts(path):
    table = config(path)
    table["roles"]["student"]["model"] = {**NETWORK, "frozen_norm": True}
    with pytest.raises(UserError, match=r"frozen_stages, but random weights; set roles.student.ba"):
        build(table)


def test_regions_need_detection_data():
    table = {
        "data": {"name": "digits"},
        "roles": {"student": {"model": {"name": "mlp"}, "terms": {"ce": {}}, "regions": "other"}},
    }
    with pytest.raises(UserError, match="but the data has no boxes"):
        build(table)


@pytest.mark.parametrize(
    ("where", "change", "settings"),
    [
        (
            "student",
            {"model": {"name": "resnet8"}},
            "'resnet8', but the data has boxes; use faster",
        ),
        ("student", {"cache": True}, "student.cache is set, but a detector samples"),
        ("data", {"test": 3}, "data.test is 3, but coco does not take it"),
        ("data", {"augment": "crop"}, "choose none or flip"),
        ("data", {"image_size": None}, "set a multiple of 32"),
        ("select", {"metric": "accuracy"}, "select.metric is 'accuracy'; there are ap, ap50"),
    ],
)
def test_errors_are_one_line(path, where, change, settings):
    table = config(path)
    holder = table["roles"] if where == "student" else table
    holder[where] = {**holder[where], **change}
    with pytest.raises(UserError, match=settings):
        build(table)


def classifier(folder, width, run, name="ResNet10", stem="imagenet"):
    """Export a classifier of ones with the run's normalisation."""
    settings = {"name": name, "stem": stem, "width": width}
    options = {key: settings[key] for key in ("stem", "width")}
    model = models.build(settings["name"], num_classes=5, **options)
    image = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    spec = run.source.spec
    metadata = {"model": settings, "num_classes": 5, "shape": (32, 32, 3), "scale": 255.0}
    metadata |= {"mean": spec.mean, "std": spec.std}
    model_export.save(
        folder, jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes), metadata
    )
    return str(folder)


def test_a_backbone_starts_from_a_classifier_and_heads_from_the_seed(path, tmp_path):
    table = config(path)
    plain = build(table)
    table["roles"]["student"]["backbone"] = classifier(tmp_path / "right", 2, plain)
    run = build(table)
    variables, stacked = RunResults(run, tmp_path, print).initial_weights(
        MemberGroup(run.variants[0], (0, 1))
    )["student"]
    assert stacked
    for leaf in jax.tree.leaves((variables.params["backbone"], variables.stats)):
        assert (np.asarray(leaf) == 1).all()
    head = np.asarray(variables.params["box"]["fc"]["kernel"])
    assert head.shape[0] == 2
    assert (head[0] != head[1]).any()
    table["roles"]["student"]["backbone"] = classifier(tmp_path / "wrong", 4, plain)
    with pytest.raises(UserError, match=r"roles.student.backbone: backbone: params/.* has shape"):
        build(table)
    table["roles"]["student"]["backbone"] = classifier(tmp_path / "deep", 2, plain, "ResNet18")
    with pytest.raises(UserError, match="backbone: it has no layer layer1_1: use weights of this"):
        build(table)
    table["roles"]["student"]["backbone"] = classifier(tmp_path / "stem", 2, plain, stem="cifar")
    with pytest.raises(UserError, match="has the stem 'cifar'; use weights with the stem"):
        build(table)


def test_a_detector_needs_boxes():
    table = {
        "data": {"name": "digits"},
        "roles": {"student": {"model": NETWORK, "terms": LEARNING}},
    }
    with pytest.raises(UserError, match="'faster_rcnn', but the data has no boxes"):
        build(table)


def test_detection_keys_need_detection_data():
    table = {
        "data": {"name": "digits", "max_boxes": 7},
        "roles": {"student": {"model": {"name": "mlp"}, "terms": {"ce": {}}}},
    }
    with pytest.raises(UserError, match=r"data.max_boxes is set, but only coco has it"):
        build(table)
