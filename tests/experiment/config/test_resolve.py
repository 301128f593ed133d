"""Configs: merging, defaults, variants, errors, differences."""

import copy
import json
import re

import pytest

from kdjax.errors import UserError
from kdjax.experiment.config import adapters, resolve, schema


def example():
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
        # the keys of a sweep are dotted paths and are not split
        ({"sweep": {"x.y": (1,)}}, {"sweep": {"z.w": (2,)}}, {"sweep": {"x.y": (1,), "z.w": (2,)}}),
        ({"sweep": {"x.y": (1,)}}, {"sweep": {"x.y": (3, 4)}}, {"sweep": {"x.y": (3, 4)}}),
        ({"sweep": {"x.y": (1,), "z": (2,)}}, {"sweep": {"x.y": None}}, {"sweep": {"z": (2,)}}),
    ],
)
def test_merge(base, over, right):
    originals = copy.deepcopy((base, over))
    merged = resolve.merge(base, over)
    assert merged == right
    assert (base, over) == originals


def test_merge_copies_its_inputs():
    base, over = {"a": {"b": [1]}}, {"c": {"d": [2]}}
    merged = resolve.merge(base, over)
    merged["a"]["b"].append(9)
    merged["c"]["d"].append(9)
    assert base == {"a": {"b": [1]}}
    assert over == {"c": {"d": [2]}}


def completed(mapping):
    return resolve.to_dict(resolve.from_dict(mapping))


def test_every_default_is_set():
    full = completed(example())
    assert full["num_steps"] == 7
    assert list(full) == list(schema.Config.model_fields)
    student = full["roles"]["student"]
    assert list(student) == list(schema.Role.model_fields)
    assert student["model"] == {"name": "mlp"}
    assert student["terms"]["forward_kl"] == {
        **schema.Term().model_dump(),
        "toward": "teacher",
        "temperature": 1.0,
        "layer": "",
        "chunk": 0,
    }


def test_attributes_and_dicts_are_the_same():
    full = resolve.from_dict(example())
    student = full.roles["student"]
    assert full.num_steps == 7
    assert student.optimizer.learning_rate == 0.1
    assert student.model.options == {}
    assert full.roles["teacher"].model.options == {"hidden": (8,)}
    assert student.terms["forward_kl"].options == {"temperature": 1.0, "layer": "", "chunk": 0}
    assert student.terms["forward_kl"].peers == ("teacher",)
    assert student.terms["ce"].peers == ()
    assert student.adapters["wide"] == adapters.LinearAdapter(width=3)
    assert resolve.from_dict(resolve.to_dict(full)) == full
    assert resolve.from_dict(json.loads(json.dumps(resolve.to_dict(full)))).num_steps == 7


def test_completing_is_idempotent_and_does_not_change_its_input():
    config = example()
    once = completed(config)
    assert config == example()
    assert completed(once) == once


def test_dotted_keys_are_paths():
    full = resolve.from_dict({**example(), "roles.student.optimizer.schedule.name": "linear"})
    assert full.roles["student"].optimizer.schedule.name == "linear"


def test_none_removes_a_role_and_a_term():
    config = example()
    config["roles"]["student"]["terms"]["ce"] = None
    config["roles"]["student"]["adapters"] = {"wide": None}
    config["roles"]["teacher"]["terms"] = None
    config["roles"]["third"] = None
    full = completed(config)
    assert list(full["roles"]) == ["teacher", "student"]
    assert list(full["roles"]["student"]["terms"]) == ["forward_kl"]
    assert full["roles"]["student"]["adapters"] == full["roles"]["teacher"]["terms"] == {}


def test_variants_override_the_rest():
    config = {
        **example(),
        "variants": {"a": {}, "b": {"roles.teacher.terms": {"ce": None}}, "c": None},
    }
    variants = resolve.variants(config)
    assert list(variants) == ["a", "b", "c"]
    assert variants["a"] == variants["c"] == example()
    assert variants["b"]["roles"]["teacher"]["terms"] == {"ce": None}
    assert variants["b"]["roles"]["student"] == example()["roles"]["student"]
    assert resolve.variants(example()) == {"default": example()}
    assert resolve.variants({**example(), "variants": {}}) == {"default": example()}


def test_a_variant_may_sweep_more_or_less():
    config = {**example(), "sweep": {"seed": (0, 1), "x.y": (1.0,)}}
    config["variants"] = {"a": {"sweep": {"x.y": None}}, "b": {"sweep": {"z": (2,)}}}
    variants = resolve.variants(config)
    assert variants["a"]["sweep"] == {"seed": (0, 1)}
    assert variants["b"]["sweep"] == {"seed": (0, 1), "x.y": (1.0,), "z": (2,)}


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
def test_invalid_configs_are_errors(path, value, message):
    with pytest.raises(UserError) as caught:
        resolve.from_dict(resolve.merge(completed(example()), {path: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roles.student.optimizer.learning_rate", 1),  # an integer is a valid float
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
def test_valid_values(path, value):
    resolve.from_dict(resolve.merge(completed(example()), {path: value}))


def test_an_unknown_key_is_reported_before_a_wrong_value():
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
    assert resolve.differences({"a": {"b": 1}}, {}) == ["a: {...} -> '(unset)'"]


def test_paths_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = resolve.from_dict({"data.path": "~/x", "roles.a.checkpoint": "~/y"})
    paths = config.data.path, config.roles["a"].checkpoint
    assert paths == (str(tmp_path / "x"), str(tmp_path / "y"))
    with pytest.raises(UserError, match=r"data\.path is ''; it must be a path that is not empty"):
        resolve.from_dict({"data.path": ""})


@pytest.mark.parametrize("name", ["v1.5", "a/b", "..", ""])
def test_a_variant_must_have_a_name_of_one_part(name):
    with pytest.raises(UserError, match=re.escape(f"variants holds {name!r}")):
        resolve.from_dict({"variants": {name: {"seed": 1}}})
