"""build: forms of a config, and objects that are created once."""

import pytest
from ml_collections import ConfigDict

from kdjax.distill import terms
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.config import resolve
from kdjax.experiment.config.schema import Config

TABLE = {
    "devices": 1,
    "batch_size": 16,
    "data": {"name": "synthetic", "num_classes": 4, "shape": (6, 6, 1), "limit": 64},
    "roles": {
        "teacher": {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}},
        "student": {
            "model": {"name": "mlp", "hidden": (4,)},
            "terms": {"ce": {}, "feature_mse": {"toward": "teacher"}},
        },
    },
}


@pytest.mark.parametrize("form", [dict, ConfigDict, resolve.from_dict])
def test_a_config_in_any_form(form):
    experiment = build(form(TABLE))
    (variant,) = experiment.variants
    assert isinstance(experiment.config, Config)
    assert experiment.config == resolve.from_dict(TABLE)
    assert variant.config is experiment.config  # completed only once
    assert variant.config.roles["student"].terms["feature_mse"].peers == ("teacher",)


def test_each_variant_has_its_config():
    variants = {"a": {}, "b": {"roles": {"student": {"terms": {"feature_mse": None}}}}}
    first, second = build({**TABLE, "variants": variants}).variants
    assert set(first.config.roles["student"].terms) == {"ce", "feature_mse"}
    assert set(second.config.roles["student"].terms) == set(second.players["student"].terms)


def test_terms_and_methods_are_created_once(monkeypatch):
    calls = []
    define = terms.TERM_SPECS["feature_mse"]

    def counted(own_layer: str = "pooled", peer_layer: str = "pooled"):
        calls.append((own_layer, peer_layer))
        return define(own_layer=own_layer, peer_layer=peer_layer)

    config = resolve.from_dict(TABLE)
    monkeypatch.setitem(terms.TERM_SPECS, "feature_mse", counted)  # pyright: ignore
    (variant,) = build(config).variants
    assert calls == [("pooled", "pooled")]
    assert variant.method(None) is variant.method(None)
    assert variant.method("data") is variant.method("data")
    assert calls == [("pooled", "pooled")]


ALONE = {"roles": {"student": {"terms": {"feature_mse": None}}}}
FROZEN = {"from_variant": "alone", "terms": {"ce": None}}
WIDER = {"model": {"hidden": (5,)}}
COOLING = {"toward": "teacher", "anneal": {"steps": 2}}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            {
                "alone": {"roles": {"teacher": None, **ALONE["roles"]}},
                "kd": {"roles": {"teacher": FROZEN}},
            },
            r"from_variant is 'alone': that variant has no role 'teacher'; it has student",
        ),
        (
            {
                "alone": ALONE,
                "kd": {"roles": {**ALONE["roles"], "teacher": {**FROZEN, **WIDER}}},
            },
            r"its teacher has another network; of another shape: .* \(4, 4\) instead of \(5, 4\)",
        ),
    ],
)
def test_an_earlier_variant_that_does_not_fit(variants, message):
    with pytest.raises(UserError, match=message):
        build({**TABLE, "variants": variants})


def test_zipped_values_without_a_seed_share_the_seed_of_the_config():
    rates = {f"roles.{r}.optimizer.learning_rate": (0.1, 0.2) for r in ("teacher", "student")}
    (variant,) = build({**TABLE, "seed": 3, "sweep": rates, "sweep_mode": "zip"}).variants
    assert [[*member.values()] for member in variant.members] == [[3, 0.1, 0.1], [3, 0.2, 0.2]]


def test_a_choice_by_a_metric_of_two_roles_needs_two():
    rates = {"roles.student.optimizer.learning_rate": (0.1, 0.2)}
    alone = {**TABLE["roles"]["student"], "terms": {"ce": {}}}
    table = {**TABLE, "select": {"metric": "agreement"}, "roles": {"student": alone}}
    build({**table, "sweep": {"seed": (0, 1)}})
    with pytest.raises(UserError, match="'agreement', which compares two roles, of 1; there are"):
        build({**table, "sweep": rates})


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"optimizer": {"schedule": {"boundaries": (1,)}}}, "name is 'cosine' and .*boundaries"),
        ({"optimizer": {"schedule": {"name": "step"}}}, "'step' needs boundaries"),
        ({"terms": {"ce": {"ramp": {"steps": 2}}}}, "ramp has no name"),
        ({"terms": {"forward_kl": COOLING}}, "anneal.to is not set"),
    ],
)
def test_keys_that_the_chosen_schedule_does_not_read(student, message):
    roles = {**TABLE["roles"], "student": {**TABLE["roles"]["student"], **student}}
    with pytest.raises(UserError, match=message):
        build({**TABLE, "roles": roles})
