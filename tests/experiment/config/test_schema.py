"""The schema: every key is declared with a meaning and existing choices."""

from dataclasses import fields
from typing import get_args

import pytest
from pydantic import ValidationError

from kdjax import data
from kdjax.data.pairs import dataset
from kdjax.errors import UserError
from kdjax.experiment.build import models, players, schedules
from kdjax.experiment.config import adapters, resolve, schema, schema_lookup
from kdjax.train import optimizer

DECLARED = list(schema_lookup.declared())
RAMPS = get_args(get_args(schema.WeightRamp.model_fields["name"].annotation)[0])


@pytest.mark.parametrize("key", DECLARED, ids=lambda key: key.path)
def test_a_key_has_a_type_and_a_meaning(key):
    assert key.type
    assert key.meaning.endswith(".")
    assert len(key.meaning) <= 90
    assert "\n" not in key.meaning


def test_paths_are_distinct():
    assert len({key.path for key in DECLARED}) == len(DECLARED) > 90


@pytest.mark.parametrize(
    "table",
    [
        schema.Config(),
        schema.Role(),
        schema.Term(),
        adapters.LinearAdapter(),
        adapters.NormDirectionAdapter(),
        adapters.FusionAdapter(),
        adapters.ConnectorAdapter(),
    ],
    ids=lambda table: type(table).__name__,
)
def test_defaults_are_valid(table):
    assert type(table).model_validate(table.model_dump()) == table


def test_a_table_is_frozen():
    with pytest.raises(ValidationError):
        schema.Config().num_steps = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("data.augment", data.AUGMENTS),
        ("data.layout", dataset.LAYOUTS),
        ("precision", models.PRECISIONS),
        ("roles.a.optimizer.name", optimizer.DIRECTIONS),
        ("roles.a.pause.name", players.PAUSES),
    ],
)
def test_choices_are_the_known_names(path, names):
    text = schema_lookup.type_text(schema_lookup.locate(path.split(".")).schema)
    assert set(text.removesuffix(" or None").replace(" or ", ", ").split(", ")) == set(names)


@pytest.mark.parametrize("name", RAMPS)
def test_every_kind_of_ramp(name):
    single = {"boundaries": (1,), "factors": (0.0, 1.0)} if name == "piecewise" else {"steps": 2}
    ramp = schema.WeightRamp(name=name, **single)
    schedule = schedules.weight_schedule("ce", schema.Term(ramp=ramp))
    assert schedule is not None
    assert 0 <= schedule(1) <= 1
    later = schedules.weight_schedule("ce", schema.Term(ramp=ramp, from_step=3, until_step=5))
    assert [float(later(step)) for step in (2, 4, 5)] == [0, float(schedule(1)), 0]


def test_steps_of_a_term_in_order():
    with pytest.raises(UserError, match=r"ce.until_step is 3; it must be > from_step = 3"):
        schedules.weight_schedule("ce", schema.Term(from_step=3, until_step=3))


def test_terms_that_begin_behind_the_end_are_reported():
    terms = {"ce": {}, "forward_kl": {"toward": "teacher", "from_step": 5}}
    config = resolve.from_dict({"num_steps": 5, "roles": {"student": {"terms": terms}}})
    with pytest.warns(UserWarning, match=r"student.terms.forward_kl.from_step is 5, but the run"):
        schedules.warn_of_late_terms(config)


def test_every_kind_of_adapter():
    kinds = {
        kind
        for table in ("LinearAdapter", "NormDirectionAdapter", "FusionAdapter", "ConnectorAdapter")
        for kind in get_args(getattr(adapters, table).model_fields["kind"].annotation)
    }
    for kind in kinds:
        role = schema.Role.model_validate({"adapters": {"wide": {"kind": kind}}})
        assert role.adapters["wide"].kind == kind


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("pairs", data.PairOptions),
        ("text", data.TextOptions),
        ("lm", data.LanguageOptions),
        ("lm, text", data.LanguageOptions),
        ("coco", data.DetectionOptions),
    ],
)
def test_keys_of_one_kind_of_data_are_marked(kind, options):
    shared = {field.name for field in fields(data.ImageOptions)}
    alone = {field.name for field in fields(options)} - shared
    text, language = (
        {field.name for field in fields(each)} for each in (data.TextOptions, data.LanguageOptions)
    )
    alone = alone & text & language if kind == "lm, text" else alone - (text & language)
    marked = [key.path for key in DECLARED if key.meaning.endswith(f" Only {kind}.")]
    assert marked == [f"data.{name}" for name in schema.Data.model_fields if name in alone]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("num_steps", int),
        ("data.path", str),
        ("data.limit", int),
        ("data.test", object),
        ("data.on_device", object),
        ("data.shape", tuple),
        ("data.eval_crop", float),
        ("tensorboard", bool),
        ("roles.a.checkpoint", str),
        ("roles.a.pause.name", str),
        ("roles.a.terms.b.toward", object),
        ("roles.a.terms.b.temperature_squared", bool),
        ("roles.a.terms.b.temperature", None),  # checked by the term
        ("roles.a.model.hidden", None),
        ("roles.a.adapters.b.width", None),  # unknown kind
        ("roles.a", None),
        ("sweep.seed", None),
        ("variants.a.num_steps", None),
        ("no_such_key", None),
    ],
)
def test_the_type_of_a_flag(path, kind):
    assert schema_lookup.flag_type(path) is kind
