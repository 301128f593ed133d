"""Configs: merging, defaults, variants, what is refused, what differs."""

import copy
import json

import pytest

from kdjax.experiment.config import resolve, schema
from kdjax.types import UserError


def given():
    return {
        "num_steps": 7,
        "roles": {
            "teacher": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
            "student": {
                "model": {"name": "mlp"},
                "terms": {"ce": {}, "forward_kl": {"toward": "teacher"}},
                "adapters": {"wide": {"width": 3}},
            },
        },
    }


@pytest.mark.parametrize(
    ("base", "over", "right"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1, "c": 2}}, {"a.b": 3}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": {"c": 1}}}, {"a.b.d": 2}, {"a": {"b": {"c": 1, "d": 2}}}),
        ({}, {"a.b.c": 1}, {"a": {"b": {"c": 1}}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a.b": None}, {"a": {"b": None}}),
        ({"a": (1, 2)}, {"a": (3,)}, {"a": (3,)}),
        # the keys of a sweep are dotted paths themselves: not taken apart
        ({"sweep": {"x.y": (1,)}}, {"sweep": {"z.w": (2,)}}, {"sweep": {"x.y": (1,), "z.w": (2,)}}),
        ({"sweep": {"x.y": (1,)}}, {"sweep": {"x.y": (3, 4)}}, {"sweep": {"x.y": (3, 4)}}),
        ({"sweep": {"x.y": (1,), "z": (2,)}}, {"sweep": {"x.y": None}}, {"sweep": {"z": (2,)}}),
    ],
)
def test_merge(base, over, right):
    kept = copy.deepcopy((base, over))
    found = resolve.merge(base, over)
    assert found == right
    assert (base, over) == kept


def test_merge_shares_nothing():
    base, over = {"a": {"b": [1]}}, {"c": {"d": [2]}}
    found = resolve.merge(base, over)
    found["a"]["b"].append(9)
    found["c"]["d"].append(9)
    assert base == {"a": {"b": [1]}}
    assert over == {"c": {"d": [2]}}


def completed(mapping):
    return resolve.to_dict(resolve.from_dict(mapping))


def test_every_default_is_filled_in():
    found = completed(given())
    assert found["num_steps"] == 7
    assert list(found) == list(schema.Config.model_fields)
    student = found["roles"]["student"]
    assert list(student) == list(schema.Role.model_fields)
    assert student["model"] == {"name": "mlp"}
    assert student["terms"]["forward_kl"] == {
        **schema.Term().model_dump(),
        "toward": "teacher",
        "temperature": 1.0,
        "layer": "",
    }


def test_attributes_and_dicts_hold_the_same():
    found = resolve.from_dict(given())
    student = found.roles["student"]
    assert found.num_steps == 7
    assert student.optimizer.learning_rate == 0.1
    assert student.model.options == {}
    assert found.roles["teacher"].model.options == {"hidden": (8,)}
    assert student.terms["forward_kl"].options == {"temperature": 1.0, "layer": ""}
    assert student.terms["forward_kl"].peers == ("teacher",)
    assert student.terms["ce"].peers == ()
    assert student.adapters["wide"] == schema.LinearAdapter(width=3)
    assert resolve.from_dict(resolve.to_dict(found)) == found
    assert resolve.from_dict(json.loads(json.dumps(resolve.to_dict(found)))).num_steps == 7


def test_completing_is_idempotent_and_leaves_its_input_alone():
    said = given()
    once = completed(said)
    assert said == given()
    assert completed(once) == once


def test_dotted_keys_are_paths():
    found = resolve.from_dict({**given(), "roles.student.optimizer.schedule.name": "linear"})
    assert found.roles["student"].optimizer.schedule.name == "linear"


def test_none_removes_a_role_and_a_term():
    said = given()
    said["roles"]["student"]["terms"]["ce"] = None
    said["roles"]["student"]["adapters"] = {"wide": None}
    said["roles"]["teacher"]["terms"] = None
    said["roles"]["third"] = None
    found = completed(said)
    assert list(found["roles"]) == ["teacher", "student"]
    assert list(found["roles"]["student"]["terms"]) == ["forward_kl"]
    assert found["roles"]["student"]["adapters"] == found["roles"]["teacher"]["terms"] == {}


def test_variants_are_laid_over_the_rest():
    said = {**given(), "variants": {"a": {}, "b": {"roles.teacher.terms": {"ce": None}}, "c": None}}
    found = resolve.variants(said)
    assert list(found) == ["a", "b", "c"]
    assert found["a"] == found["c"] == given()
    assert found["b"]["roles"]["teacher"]["terms"] == {"ce": None}
    assert found["b"]["roles"]["student"] == given()["roles"]["student"]
    assert resolve.variants(given()) == {"default": given()}
    assert resolve.variants({**given(), "variants": {}}) == {"default": given()}


def test_a_variant_may_sweep_more_or_less():
    said = {**given(), "sweep": {"seed": (0, 1), "x.y": (1.0,)}}
    said["variants"] = {"a": {"sweep": {"x.y": None}}, "b": {"sweep": {"z": (2,)}}}
    found = resolve.variants(said)
    assert found["a"]["sweep"] == {"seed": (0, 1)}
    assert found["b"]["sweep"] == {"seed": (0, 1), "x.y": (1.0,), "z": (2,)}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("num_stesp", 1, "config: unknown key num_stesp; did you mean num_steps?"),
        ("xyzzy", 1, "config: unknown key xyzzy; known: seed, num_steps"),
        ("data.nam", "x", "config: unknown key data.nam; did you mean data.name?"),
        ("roles.student.term", {}, "unknown key roles.student.term; did you mean"),
        (
            "roles.student.optimizer.schedule.warmup",
            1,
            "did you mean roles.student.optimizer.schedule.warmup_steps?",
        ),
        ("roles.student.terms.ce.ramp.step", 1, "did you mean roles.student.terms.ce.ramp.steps?"),
        ("num_steps", "7", "config: num_steps is '7'; it must be of type int"),
        ("num_steps", 7.0, "config: num_steps is 7.0; it must be of type int"),
        ("tensorboard", 1, "config: tensorboard is 1; it must be of type bool"),
        ("data.path", 3, "config: data.path is 3; it must be of type str"),
        ("data.test", "x", "config: data.test is 'x'; it must be of type int, float or None"),
        (
            "roles.student.adapters.wide.width",
            1.5,
            "adapters.wide.width is 1.5; it must be of type",
        ),
        (
            "roles.student.adapters.wide.layers",
            (),
            "unknown key roles.student.adapters.wide.layers",
        ),
        ("roles.student.optimizer.momentum", None, "momentum is None; it must be of type float"),
        ("roles.student.optimizer.learning_rate", True, "is True; it must be of type float"),
        (
            "roles.student.optimizer",
            3,
            "roles.student.optimizer is 3; it must be a table (a dict of name, learning_rate, ",
        ),
        ("roles", ["a"], "config: roles is ['a']; it must be a table (a dict of names)"),
        ("roles.student", 3, "roles.student is 3; it must be a table (a dict of model, input, "),
        ("roles.student.adapters.wide", 3, "wide is 3; it must be a table (a dict of kind, "),
        ("variants.a", 3, "variants.a is 3; it must be a table (a dict of names)"),
        ("sweep", [1], "sweep is [1]; it must be a table (a dict of names)"),
        ("roles.student.adapters.wide.kind", "conv", "kind is 'conv'; there are linear, norm_"),
        ("num_steps", 0, "config: num_steps is 0; it must be >= 1"),
        ("num_steps", True, "config: num_steps is True; it must be of type int"),
        ("data.test", -1, "data.test is -1; it must be >= 0"),
        ("data.test", float("inf"), "data.test is inf; it must be >= 0 and finite"),
        ("data.eval_crop", 1.5, "data.eval_crop is 1.5; it must be > 0 and <= 1"),
        ("data.shape", (8, "x"), "data.shape is (8, 'x'); it must be of type tuple of int or None"),
        ("roles.student.terms.ce.weight", float("nan"), "terms.ce.weight is nan; it must be finit"),
        ("roles.student.optimizer.learning_rate", float("nan"), "is nan; it must be >= 0 and fini"),
        ("parallel", "tpu", "config: parallel is 'tpu'; it must be pmap or mesh"),
        ("data.on_device", 1, "data.on_device is 1; it must be auto or bool"),
        ("roles.student.pause.name", "nap", "pause.name is 'nap'; it must be switokd or None"),
        ("roles.student.terms.ce.weight", "x", "terms.ce.weight is 'x'; it must be of type float"),
    ],
)
def test_what_is_refused(path, value, message):
    with pytest.raises(UserError) as caught:
        resolve.from_dict(resolve.merge(completed(given()), {path: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roles.student.optimizer.learning_rate", 1),  # a whole number is a number
        ("roles.student.optimizer.clip_norm", 5),
        ("roles.student.optimizer.schedule.boundaries", [1, 2]),
        ("roles.student.terms.forward_kl.toward", ["teacher"]),
        ("roles.student.terms.ce.temperature_squared", True),
        ("roles.student.checkpoint", "folder"),
        ("data.test", 300),
        ("data.on_device", False),
        ("data.shape", [8, 8, 1]),
    ],
)
def test_what_passes(path, value):
    resolve.from_dict(resolve.merge(completed(given()), {path: value}))


def test_an_unknown_key_comes_before_a_wrong_value():
    with pytest.raises(
        UserError, match=r"^here: unknown key data\.nam; did you mean data\.name\?$"
    ):
        resolve.from_dict({"num_steps": 0, "data": {"nam": "digits"}}, "here")


def test_differences_are_the_leaves_that_differ():
    old = {"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": "x", "same": {"f": None}}
    new = {"a": 1, "b": {"c": 3, "d": [1, 3]}, "g": 0, "same": {"f": None}}
    assert resolve.differences(old, new) == [
        "b.c: 2 -> 3",
        "b.d: [1, 2] -> [1, 3]",
        "e: 'x' -> '(unset)'",
        "g: '(unset)' -> 0",
    ]
    assert resolve.differences(old, old) == []
    assert resolve.differences({"a": {"b": 1}}, {"a": 2}) == ["a: {'b': 1} -> 2"]
