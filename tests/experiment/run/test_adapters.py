"""Adapters in a run: ReviewKD's term against a reference, variants that share adapters."""

import json

import numpy as np
import pytest

from kdjax.distill import terms
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.train import train
from kdjax.types import Outputs
from tests.faults.commands import base
from tests.losses import references

HINT = {"toward": "teacher", "own_layer": "wide"}
STUDENT = {"adapters": {"wide": {"width": 8}}}


def test_review_is_the_sum_of_its_levels():
    rng = np.random.default_rng(0)
    shapes = ((8, 8, 3), (4, 4, 5), (7,))
    own, peer = ([rng.normal(size=(2, *s)).astype(np.float32) for s in shapes] for _ in range(2))
    layers = ("low", "high", "pooled")
    spec = terms.hierarchical_context(own_layer="fused", peer_layers=layers)
    seen = Outputs(None, {f"fused{i}": x for i, x in enumerate(own, start=1)})
    actual = spec.loss_fn(seen, [Outputs(None, dict(zip(layers, peer, strict=True)))], {}, {})
    as_maps = [
        (a.reshape(2, 1, 1, -1), b.reshape(2, 1, 1, -1)) if a.ndim == 2 else (a, b)
        for a, b in zip(own, peer, strict=True)
    ]
    right = sum(references.hierarchical_context(a, b) for a, b in as_maps)
    np.testing.assert_allclose(actual, right, rtol=1e-5)
    assert spec.layers == (("fused1", "low"), ("fused2", "high"), ("fused3", "pooled"))


def test_a_variant_builds_the_adapters_that_its_terms_use():
    settings = base(roles__student__adapters=STUDENT["adapters"])
    hint = {"roles": {"student": {"terms": {"feature_mse": HINT}}}}
    without = {"roles": {"student": {"adapters": {"wide": None}}}}
    run = build({**settings, "variants": {"plain": {}, "hint": hint, "without": without}})
    plain, adapted, dropped = (variant.parameters["student"] for variant in run.variants)
    assert plain == dropped
    assert adapted == plain + 6 * 8 + 8


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    """Return a config: a student with an adapter, frozen in a variant that uses its logits."""
    settings = base(roles__student__adapters=STUDENT["adapters"], num_steps=2)
    settings["roles"]["student"]["terms"]["feature_mse"] = HINT
    frozen = {
        "terms": {"ce": None, "feature_mse": None, "balanced_kl": None},
        "from_variant": "first",
    }
    follows = {"forward_kl": {"toward": "student"}}
    settings["variants"] = {
        "first": {},
        "second": {"roles": {"student": frozen, "teacher": {"terms": follows}}},
    }
    folder = tmp_path_factory.mktemp("chained")
    run = build(settings)
    train(run, folder, lambda _: None)
    return run, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_later_variant_uses_the_network_without_its_adapter(chained):
    run, rows = chained
    first, second = run.variants
    assert first.parameters["student"] == second.parameters["student"] + 6 * 8 + 8
    score = {
        row["variant"]: row["student/accuracy"]
        for row in rows
        if row["split"] == "test" and "student/accuracy" in row
    }
    assert score["first"] == score["second"]


def test_a_role_with_a_checkpoint_has_no_adapter_weights():
    settings = base(roles__student__adapters=STUDENT["adapters"])
    settings["roles"]["student"]["terms"]["feature_mse"] = HINT
    again = {"roles": {"student": {"from_variant": "first"}}}
    with pytest.raises(UserError, match=r"student sets both from_variant and adapters\.wide"):
        build({**settings, "variants": {"first": {}, "again": again}})
