"""build: forms of a config, and objects that are created once."""

import pytest
from ml_collections import ConfigDict

from kdjax.distill import terms
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
