"""The published pairs of CIFAR-100: networks, settings, and the training of ReviewKD++."""

import pathlib

import jax
import numpy as np
import pytest

from experiments import cifar100_table
from kdjax import models
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.commands import overrides
from kdjax.experiment.run.train import train

ROOT = pathlib.Path(__file__).resolve().parents[3] / "experiments"
PAIRS = ("res56_20", "wrn40_2_40_1", "res32x4_8x4", "res50_mv2", "res32x4_shv1", "res32x4_shv2")
TABLE = ROOT / "cifar100_table.py"
IMAGES = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)}


def config(method, pair):
    return overrides.read(f"{TABLE}:{method},{pair}", ["--config.devices=1"]).config


def features(model_options):
    """Return the names and shapes of a network's features, without the batch axis."""
    options = {key: value for key, value in model_options.items() if key != "name"}
    model = models.build(model_options["name"], num_classes=100, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    outputs, _ = jax.eval_shape(lambda v, b: model.apply(v, b, train=False), variables, IMAGES)
    return {name: x.shape[1:] for name, x in outputs.features.items()}


@pytest.mark.parametrize("pair", PAIRS)
def test_levels_and_widths_match_the_networks(pair):
    roles = config("reviewkdpp", pair)["roles"]
    own, peer = (features(roles[role]["model"]) for role in ("student", "teacher"))
    adapters, terms = roles["student"]["adapters"], roles["student"]["terms"]
    fusion, levels = adapters["review"], terms["hierarchical_context"]["peer_layers"]
    assert len(fusion["layers"]) == len(levels)
    assert set(fusion["layers"]) <= set(own)
    for width, size, layer in zip(fusion["widths"], fusion["sizes"], levels, strict=True):
        assert peer[layer] == ((width,) if layer == "pooled" else (size, size, width))
    looks = adapters.get("projected", {"width": own["pooled"][0]})
    assert looks["width"] == peer["pooled"][0]
    assert ("projected" in adapters) == (own["pooled"] != peer["pooled"])
    through = "projected" if "projected" in adapters else "pooled"
    assert terms["norm_direction"]["own_layer"] == through


# published weights, steps of an epoch and learning rates: pair -> the student's terms
PUBLISHED = {
    ("kd", "res56_20"): ({"ce": 0.1, "forward_kl": 0.9}, 742, 0.05, 0),
    ("dist", "res32x4_shv1"): ({"ce": 1.0, "correlation": 2.0}, 742, 0.01, 0),
    ("reviewkd", "wrn40_2_40_1"): ({"ce": 1.0, "hierarchical_context": 5.0}, 742, 0.05, 20),
    ("kdpp", "res50_mv2"): ({"ce": 1.0, "forward_kl": 3.0, "norm_direction": 0.5}, 371, 0.1, 20),
    ("distpp", "res32x4_8x4"): ({"ce": 1, "correlation": 1.5, "norm_direction": 4}, 371, 0.1, 20),
    ("dkdpp", "res32x4_shv2"): ({"ce": 1, "decoupled_kl": 1, "norm_direction": 0.5}, 371, 0.02, 20),
    ("reviewkdpp", "res56_20"): (
        {"ce": 1.0, "hierarchical_context": 1.2, "norm_direction": 1.0},
        371,
        0.1,
        20,
    ),
}


@pytest.mark.parametrize("row", PUBLISHED, ids="-".join)
def test_settings_are_as_published(row):
    weights, epoch, rate, ramp = PUBLISHED[row]
    settings = config(*row)
    student = settings["roles"]["student"]
    assert {name: term["weight"] for name, term in student["terms"].items()} == weights
    assert settings["num_steps"] == 240 * epoch
    assert student["optimizer"]["learning_rate"] == rate
    assert student["optimizer"]["nesterov"] == row[0].endswith("pp")
    assert student["optimizer"]["weight_decay"] == 5e-4
    schedule = student["optimizer"]["schedule"]
    assert list(schedule["boundaries"]) == [at * epoch for at in (150, 180, 210)]
    for name, term in student["terms"].items():
        ramped = ramp if name not in ("ce", "norm_direction") else 0
        assert term["ramp"]["steps"] == ramped * epoch, name
        if "temperature" in term:
            assert term["temperature"] == 4.0
    assert not settings["roles"]["teacher"]["terms"]


def test_dkd_has_the_published_alpha_and_beta():
    for method, alphas, betas in (
        ("dkd", (1, 1, 1, 1, 1, 1), (2, 6, 8, 8, 8, 8)),
        ("dkdpp", (2.5, 1, 2, 0.5, 0.5, 0.5), (4, 6, 8, 8, 8, 6)),
    ):
        terms = [config(method, p)["roles"]["student"]["terms"]["decoupled_kl"] for p in PAIRS]
        assert [term["alpha"] for term in terms] == list(alphas)
        assert [term["beta"] for term in terms] == list(betas)


def test_the_error_for_an_unknown_pair_lists_the_pairs():
    files = {f"{TABLE}:kd,res56": ", ".join(PAIRS)}
    files[f"{ROOT / 'imagenet_kdpp.py'}:res56"] = "r34_r18, r50_mv1"
    for file, known in files.items():
        with pytest.raises(UserError, match=f"no pair 'res56'; there are {known} and smoke"):
            overrides.read(file, [])


def test_the_error_for_an_unknown_method_lists_the_methods():
    with pytest.raises(UserError, match=r"no method 'reviewdk'; there are kd, .*, reviewkdpp"):
        overrides.read(f"{TABLE}:reviewdk,res56_20", [])


@pytest.mark.parametrize("method", cifar100_table.NAMES)
def test_every_method_has_a_valid_config(method):
    roles = config(method, "res32x4_shv1")["roles"]
    added = {*roles["student"]["terms"]} - {"ce"}
    assert added or "critic" in roles


def test_reviewkdpp_trains_from_its_teacher(tmp_path):
    """Train from the experiment file: both kinds of adapters, class means and a frozen teacher."""
    settings = {**config("reviewkdpp", "smoke"), "tensorboard": False, "log_every": 1}
    run = build(settings)
    assert set(run.variants[1].players["student"].terms) == {
        "ce",
        "hierarchical_context",
        "norm_direction",
    }
    outcomes = train(run, tmp_path, lambda _: None)
    assert [outcome.name for outcome in outcomes] == ["teacher", "student"]
    lines = (tmp_path / "metrics.jsonl").read_text()
    for term in ("hierarchical_context", "norm_direction"):
        assert f"student/{term}/raw" in lines
    assert list((tmp_path / "class_means").glob("*.npz"))
