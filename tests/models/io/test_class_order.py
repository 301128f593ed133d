"""Outputs come into the order of the data's classes by name, or the network is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.io.class_order import in_data_order, is_numbered
from kdjax.types import Spec

LABELS = ("entailment", "not_entailment", "neutral")


def spec(labels=LABELS, **changes):
    return Spec((2, 2, 1), len(labels), tuple(labels), (0.0,), (1.0,), 1.0)._replace(**changes)


def network(classes=3, name="mlp", **options):
    model = models.build(name, num_classes=classes, **options)
    batch = {"image": jnp.ones((2, 32, 32, 3))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (LABELS, [0, 1, 2]),
        (("neutral", "entailment", "not_entailment"), [1, 2, 0]),
        (("NEUTRAL", "Not entailment", "Entailment"), [2, 1, 0]),
        (("not-entailment", "ENTAILMENT", "neutral"), [1, 0, 2]),
    ],
)
def test_the_last_layer_takes_the_datas_order(names, order):
    before = network(hidden=(4,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = in_data_order(before, names, spec(), "teacher")
    old, new = before.params["fc"], after.params["fc"]
    for label in range(3):
        np.testing.assert_array_equal(new["kernel"][:, label], old["kernel"][:, order[label]])
        assert new["bias"][label] == old["bias"][order[label]]
    rest = {name: x for name, x in after.params.items() if name != "fc"}
    jax.tree.map(np.testing.assert_array_equal, rest, {name: before.params[name] for name in rest})


def test_names_that_differ_in_case_or_signs_alone_stay_apart():
    before = network(4, hidden=(4,))
    labels = ("a", "A", "c", "c++")
    after = in_data_order(before, ("A", "c++", "a", "c"), spec(labels), "teacher")
    bias = before.params["fc"]["bias"]
    np.testing.assert_array_equal(after.params["fc"]["bias"], bias[[2, 0, 3, 1]])
    with pytest.raises(UserError, match="teacher has the classes A, b, a, c"):
        in_data_order(before, ("A", "b", "a", "c"), spec(labels), "teacher")


def test_a_detectors_boxes_go_with_its_classes():
    before = network(3, "faster_rcnn", backbone="ResNet10", pyramid_width=4, box_width=4)
    labels = ("blue", "red", "background")
    after = in_data_order(before, ("red", "blue", "background"), spec(labels), "x").params["box"]
    old = before.params["box"]
    np.testing.assert_array_equal(after["fc"]["kernel"], old["fc"]["kernel"][:, [1, 0, 2]])
    for leaf in ("kernel", "bias"):
        boxes = old["deltas"][leaf].reshape(*old["deltas"][leaf].shape[:-1], 2, 4)
        expected = boxes[..., ::-1, :].reshape(old["deltas"][leaf].shape)
        np.testing.assert_array_equal(after["deltas"][leaf], expected)


@pytest.mark.parametrize(
    "names",
    [
        ("positive", "negative", "mixed"),
        ("entailment", "not_entailment", "contradiction"),
        ("entailment", "not_entailment", "entailment"),
        ("entailment", "not_entailment"),
        ("LABEL_1", "LABEL_0", "LABEL_2"),
    ],
)
def test_contradicting_names_are_refused(names):
    says = "but the data has entailment, not_entailment, neutral; give the"
    with pytest.raises(UserError, match=says):
        in_data_order(network(hidden=(4,)), names, spec(), "teacher")


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2"), tuple("012"), ()])
def test_names_that_are_numbers_or_missing_are_assumed_aloud(names):
    before = network(hidden=(4,))
    with pytest.warns(UserWarning, match="assumed to be in the data's order: entailment, not_"):
        assert in_data_order(before, names, spec(), "teacher") is before
    with pytest.warns(UserWarning, match="assumed"):  # the data has no names
        in_data_order(before, LABELS, spec(tuple("012")), "teacher")


def test_outputs_without_an_order_of_classes_are_not_compared():
    before = network(hidden=(4,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (
            spec(("score",)),
            spec(inputs={"choice_ids": ((3, 2), "int32")}),
            spec((), num_classes=16),
            spec(("b", "c", "c")),
        ):
            names = other.class_names if "c" in other.class_names else ("b", "a", "c")
            assert in_data_order(before, names, other, "teacher") is before


def test_a_network_whose_order_cannot_change_is_refused():
    before = network(2, "lipschitz_mlp", hidden=(4,))
    with pytest.raises(UserError, match="teacher has the data's classes in another order"):
        in_data_order(before, ("b", "a"), spec(("a", "b")), "teacher")


@pytest.mark.parametrize(
    ("names", "numbered"),
    [((), True), (("LABEL_0", "LABEL_1"), True), (("0", "1"), True), (("class 0", "class-1"), True),
     (("1", "2"), False), (("LABEL_1", "LABEL_0"), False), (("n01440764", "n01443537"), False)],
)  # fmt: skip
def test_numbered(names, numbered):
    assert is_numbered(names) == numbered
