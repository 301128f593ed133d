"""The two-stage detector: its rows, its inputs in evaluation, its frozen parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.detection.boxes import encode
from kdjax.models.detection.matching import GroundTruth
from kdjax.models.detection.proposals import Limits, detect, propose, region_rows
from kdjax.types import Variables

LIMITS = {
    "before": 20, "proposals": 10, "anchors": 8, "regions": 8, "detections": 4, "candidates": 20,
}  # fmt: skip
SMALL = {
    "num_classes": 4,
    "backbone": "ResNet10",
    "backbone_options": {"width": 4},
    "pyramid_width": 4,
    "box_width": 8,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "canonical": 56.0,
    "limits": LIMITS,
}
PICTURES = 2


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    box = np.array([[5, 5, 30, 40], [30, 30, 60, 60], [0, 0, 0, 0]], np.float32)
    return {
        "image": jnp.array(rng.normal(size=(PICTURES, 64, 64, 3)), jnp.float32),
        "size": jnp.array([[64, 64], [64, 60]], jnp.float32),
        "box": jnp.stack([jnp.array(box)] * PICTURES),
        "box_label": jnp.array([[0, 2, 0]] * PICTURES, jnp.int32),
        "box_mask": jnp.array([[1, 1, 0], [0, 0, 0]], jnp.float32),  # the second image has no boxes
        "crowd": jnp.zeros((PICTURES, 3), jnp.float32),
        "draw": jnp.array([1, 2], jnp.uint32),
        "label": jnp.zeros(PICTURES, jnp.int32),
        "mask": jnp.ones(PICTURES, jnp.float32),
    }


def without_boxes(batch):
    return {name: batch[name] for name in ("image", "size")}


@functools.cache
def build(**options):
    model = models.build("faster_rcnn", **SMALL, **options)
    quick = {"xla_backend_optimization_level": 1}
    init = jax.jit(model.init, compiler_options=quick)
    return model, init(jax.random.key(0), batch_of())


@functools.cache
def train_step():
    """Return outputs and gradients of one training batch, compiled once for all tests."""
    model, variables = build()

    def total(params, batch):
        outputs, stats = model.apply(Variables(params, variables.stats), batch, train=True)
        rows = ("box_delta", "anchor_logits", "anchor_delta")
        value = jnp.sum(outputs.logits**2) + sum(jnp.sum(outputs.features[r] ** 2) for r in rows)
        return value, (outputs, stats)

    grads, (outputs, stats) = jax.jit(jax.grad(total, has_aux=True))(variables.params, batch_of())
    return grads, outputs, stats


def test_rows_of_a_training_batch():
    _, outputs, stats = train_step()
    rows = PICTURES * LIMITS["regions"]
    features = outputs.features
    assert outputs.logits.shape == (rows, 4)
    assert features["pooled"].shape == (rows, 8)
    assert features["box_delta"].shape == features["box_target"].shape == (rows, 4)
    assert features["anchor_logits"].shape == (PICTURES * LIMITS["anchors"],)
    label = np.asarray(features["row_label"]).reshape(PICTURES, -1)
    assert set(label[0].tolist()) <= {0, 2, 3}
    assert {0, 2} <= set(label[0].tolist())  # true boxes are among the regions
    assert (label[1] == 3).all()  # an image without boxes is background
    anchor = np.asarray(features["anchor_label"]).reshape(PICTURES, -1)
    assert anchor[0].sum() > 0
    assert anchor[1].sum() == 0
    # batch norm statistics change
    assert any(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), stats, build()[1].stats))
    )


def test_every_parameter_has_a_gradient():
    grads, _, _ = train_step()
    flat = jax.tree_util.tree_flatten_with_path(grads)[0]
    still = ["/".join(str(k.key) for k in path) for path, g in flat if not np.any(np.asarray(g))]
    # no box is large enough for that level, and few sampled anchors are on it
    assert set(still) <= {"pyramid/output4/kernel", "pyramid/output4/bias"}


def test_targets_map_a_region_to_its_box():
    _, outputs, _ = train_step()
    features, scene = outputs.features, batch_of()
    regions = features["region"].reshape(-1, 4)
    rows = np.flatnonzero(np.asarray(features["row_label"]) == 2)
    expected = encode(scene["box"][0, 1][None], regions[rows], (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_allclose(features["box_target"][rows], expected, rtol=1e-4, atol=1e-4)


def test_detection_without_boxes_and_unchanged_statistics():
    model, variables = build()
    find = jax.jit(lambda v, b: model.apply(v, b, train=False))
    outputs, stats = find(variables, without_boxes(batch_of()))
    detections = np.asarray(outputs.features["detections"])
    assert detections.shape == (PICTURES, LIMITS["detections"], 7)
    real = detections[detections[..., 6] > 0]
    assert len(real) > 0  # scores near 1 / 4 are above the minimum score
    assert (real[:, 2] > real[:, 0]).all()
    assert (real[:, :4] >= 0).all()
    assert (detections[1, :, 2] <= 60).all()
    assert (np.diff(detections[..., 4], axis=1) <= 0).all()
    jax.tree.map(np.testing.assert_array_equal, stats, variables.stats)


def test_a_guest_uses_given_regions():
    model, variables = build()
    _, outputs, _ = train_step()
    regions = {name: outputs.features[name] for name in models.REGION_KEYS}
    judge = jax.jit(lambda v, b: model.apply(v, b, train=False)[0])
    guest = judge(variables, {**without_boxes(batch_of()), **regions})
    assert "anchor_logits" not in guest.features
    for name in ("row_label", "row_mask", "box_target"):
        np.testing.assert_array_equal(guest.features[name], outputs.features[name])
    assert guest.logits.shape == outputs.logits.shape


def test_frozen_parts_are_statistics():
    model = models.build("faster_rcnn", **SMALL, frozen_norm=True, frozen_stages=2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of())
    backbone = shapes.params["backbone"]
    assert "conv1" not in backbone
    assert "layer1_0" not in backbone
    assert set(backbone["layer2_0"]) == {"conv1", "conv2", "shortcut_conv"}  # no batch norm
    frozen = shapes.stats["frozen"]["backbone"]
    assert "conv1" in frozen
    assert set(frozen["layer2_0"]) == {"bn1", "bn2", "shortcut_bn"}
    _, stats = jax.eval_shape(lambda v, b: model.apply(v, b, train=True), shapes, batch_of())
    assert jax.tree.structure(stats) == jax.tree.structure(shapes.stats)
    plain = models.build("faster_rcnn", **SMALL)
    variables = jax.eval_shape(plain.init, jax.random.key(0), batch_of())
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    assert count(variables.params) == count(shapes.params) + count(shapes.stats["frozen"])


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_a_classifier_fill_the_backbone(frozen):
    stages = {"frozen_norm": frozen, "frozen_stages": 2 if frozen else 0}
    detector = models.build("faster_rcnn", **SMALL, **stages)
    classifier = models.build("ResNet10", num_classes=5, stem="imagenet", width=4)
    make = lambda m, fill: jax.tree.map(  # noqa: E731
        lambda x: np.full(x.shape, fill), jax.eval_shape(m.init, jax.random.key(0), batch_of())
    )
    merged = models.with_backbone(make(detector, 0.0), make(classifier, 1.0))
    leaves = jax.tree_util.tree_flatten_with_path(merged)[0]
    for path, leaf in leaves:
        assert (leaf == (1.0 if "backbone" in jax.tree_util.keystr(path) else 0.0)).all(), path
    other = make(models.build("ResNet10", num_classes=5, stem="imagenet", width=8), 1.0)
    with pytest.raises(UserError, match="backbone: params"):
        models.with_backbone(make(detector, 0.0), other)


def test_every_backbone_has_the_strides_of_the_pyramid():
    for name, options in (("ResNet50", {"width": 4}), ("MobileNetV2", {"width": 0.1})):
        other = {"backbone": name, "backbone_options": options}
        model = models.build("faster_rcnn", **SMALL | other)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of())
        apply = functools.partial(model.apply, train=True)
        outputs, _ = jax.eval_shape(apply, shapes, batch_of())
        assert outputs.logits.shape == (PICTURES * LIMITS["regions"], 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg8"}, "backbone is 'vgg8'"),
        ({"backbone_options": {"depth": 3}}, "backbone_options.depth"),
        ({"anchor_sizes": (8, 16)}, "give 5, one per level"),
        ({"limits": {"boxes": 3}}, "limits.boxes: no such limit"),
        ({"limits": {"regions": 0}}, "limits.regions is 0"),
        ({"frozen_stages": 2}, "set it to True"),
        ({"frozen_stages": 9, "frozen_norm": True}, "use 0 to 5"),
        ({"num_classes": 1}, "2 classes"),
    ],
)
def test_invalid_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        models.build("faster_rcnn", **{**SMALL, **options})


def test_image_sizes_must_be_multiples_of_the_stride():
    model, _ = build()
    with pytest.raises(UserError, match="multiples of 32"):
        jax.eval_shape(model.init, jax.random.key(0), {"image": jnp.zeros((1, 60, 64, 3))})


@pytest.mark.parametrize(("entry", "missing"), [("box", "box_label"), ("region", "region_label")])
def test_a_training_batch_without_an_entry_is_refused_by_name(entry, missing):
    model, variables = build()
    batch = {"image": jnp.zeros((1, 64, 64, 3)), entry: jnp.zeros((1, 2, 4))}
    with pytest.raises(UserError, match=rf'in training reads batch\["{missing}"\]'):
        jax.eval_shape(lambda v: model.apply(v, batch, train=True), variables)


def test_proposals_are_the_best_and_distinct_and_a_nan_is_none():
    limits = Limits(before=3, proposals=3)
    anchors = (jnp.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 40, 40], [5, 5, 5, 9.0]]),)
    logits = jnp.array([1.0, 2.0, 0.5, 9.0])
    box, real = propose(logits, jnp.zeros((4, 4)), anchors, jnp.array([30.0, 50.0]), limits)
    assert real.tolist() == [True, True, False]  # one overlaps too much, one has almost no area
    np.testing.assert_allclose(box[:2], [[5, 5, 5.001, 9], [1, 0, 11, 10]], atol=1e-3)
    box, real = propose(logits, jnp.full((4, 4), jnp.nan), anchors, jnp.array([30.0, 50.0]), limits)
    assert not real.any()
    assert np.isfinite(box).all()


def test_detections_are_suppressed_by_class():
    logits = jnp.log(jnp.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.01, 0.01, 0.98]]))
    box = jnp.array([[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30.0]])
    detections = detect(
        logits, jnp.zeros((3, 2, 4)), box, jnp.ones(3, bool), jnp.array([40.0, 40.0]), Limits()
    )
    real = np.asarray(detections)[np.asarray(detections)[:, 6] > 0]
    # class 0: the first suppresses the second; class 1: the second has the higher score
    np.testing.assert_allclose(real[:, 4:6], [[0.8, 0], [0.3, 1]], rtol=1e-5)
    np.testing.assert_allclose(real[:, :4], [[0, 0, 10, 10], [0, 0, 10, 11]], atol=1e-4)


def test_crowds_are_neither_objects_nor_background():
    truth = GroundTruth(
        jnp.array([[0, 0, 30, 30], [0, 0, 0, 0.0]]),
        jnp.array([1, 0]),
        jnp.array([True, False]),
        jnp.array([True, False]),
        jnp.array([64.0, 64.0]),
    )
    box = jnp.array([[0, 0, 30, 30], [40, 40, 60, 60.0]])
    rows = region_rows(box, jnp.ones(2, bool), truth, jax.random.key(0), 3, Limits(regions=4))
    real = np.asarray(rows["region_mask"]) > 0
    assert real.sum() == 1
    np.testing.assert_array_equal(rows["region"][0], box[1])
    assert rows["region_label"][0] == 3
