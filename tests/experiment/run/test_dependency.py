"""The Wasserstein dependency as a distillation term: updates, devices, sweeps, errors."""

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from tests.experiment.build.test_critics import CLOSE

RATE, WEIGHT = "roles.*.optimizer.learning_rate", "roles.wdm.terms.dependency.weight"
PENALTY = "roles.wdm.terms.dependency.penalty"


def config(model=None, weight=1.0, penalty=10.0, **changes):
    """Return a config: a trained student, a trained teacher and a critic between them."""
    return {
        "num_steps": 3,
        "batch_size": 16,
        "eval_batch_size": 64,
        "devices": 1,
        "log_every": 1,
        "checkpoint_every": 3,
        "tensorboard": False,
        "data": {"name": "synthetic", "num_classes": 4, "shape": (6, 6, 1), "limit": 160},
        "roles": {
            "teacher": {"model": {"name": "mlp", "hidden": (12,)}, "terms": {"ce": {}}},
            "student": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
            "wdm": {
                "between": ("student", "teacher"),
                "model": {"name": "dependency", "width": 8, **(model or {})},
                "terms": {"dependency": {"weight": weight, "penalty": penalty}},
            },
        },
        **changes,
    }


def train(settings, steps=3):
    run = build(settings)
    members = tuple(range(len(run.variants[0].members)))
    program, state = make_program(run, MemberGroup(run.variants[0], members), {})
    first = jax.device_get((state.params, state.stats))
    state, batches, seen = program.layout.place(state), device_batches(run, program, 0), []
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
        seen.append(jax.device_get(metrics))
    return first, jax.device_get(state._replace(key=jax.random.key_data(state.key))), seen


@pytest.mark.parametrize(
    "model",
    [
        {"objective": "dual", "kind": "concat_spectral"},
        {"objective": "wpc", "kind": "concat", "at": "product", "sides": 2},
        {"objective": "wpc", "kind": "bilinear_bjorck", "radius": 8.0},
        {"objective": "cpc", "kind": "bilinear", "bound": "ball"},
    ],
    ids=["dual", "wpc-penalty", "wpc-bjorck", "cpc"],
)
def test_student_and_critic_ascend_and_the_teacher_gets_no_gradient(model):
    """All terms but the dependency have weight 0, so every update comes from it."""
    settings = config(model, penalty=1e-3)
    for role in ("student", "teacher"):
        settings["roles"][role]["terms"]["ce"] = {"weight": 0.0}
    for role in settings["roles"].values():
        role["optimizer"] = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.0}
    settings["data"]["limit"] = 16  # every batch has the same 16 examples
    (params, _), state, seen = train(settings, steps=8)
    estimates = [float(metrics["wdm/estimate"][0]) for metrics in seen]
    assert estimates[-1] > estimates[0]
    jax.tree.map(np.testing.assert_array_equal, params["teacher"], state.params["teacher"])
    for role in ("student", "wdm"):
        moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), params[role], state.params[role])
        assert any(jax.tree.leaves(moved)), role
    plain = model["kind"] in ("concat", "bilinear")
    assert all(("wdm/slope" in metrics) == plain for metrics in seen)
    assert all(metrics["wdm/slope"][0] > 0 for metrics in seen if plain)
    assert ("wdm/penalty" in seen[0]) == (model["kind"] == "concat")


def test_a_member_of_a_sweep_equals_the_single_run():
    model = {"kind": "concat", "objective": "wpc"}
    table = {"seed": (0, 5), WEIGHT: (1.0, 0.5), PENALTY: (10.0, 2.0)}
    _, states, many = train(config(model, sweep=table, sweep_mode="zip"))
    _, alone, one = train(config(model, weight=0.5, penalty=2.0, seed=5))
    for part in ("params", "opt"):
        pairs = zip(
            jax.tree.leaves(getattr(states, part)),
            jax.tree.leaves(getattr(alone, part)),
            strict=True,
        )
        for stacked, single in pairs:
            np.testing.assert_allclose(stacked[1], single[0], **CLOSE)
    np.testing.assert_allclose(many[-1]["wdm/loss"][1], one[-1]["wdm/loss"][0], **CLOSE)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (simulated) devices")
@pytest.mark.parametrize(
    "kind", [pytest.param("bilinear_spectral", marks=pytest.mark.long), "concat"]
)
def test_eight_devices_equal_one(kind):
    """Negatives come from the global batch, and the critic's statistics are equal."""
    results = []
    for devices in (1, 8):
        _, state, seen = train(config({"kind": kind}, devices=devices, parallel="pmap"))
        results.append((state, seen[-1]))
    (one, metrics), (eight, same) = results
    for role in ("student", "wdm"):
        for tree, other in ((one.params, eight.params), (one.stats, eight.stats)):
            pairs = zip(jax.tree.leaves(tree[role]), jax.tree.leaves(other[role]), strict=True)
            for x, y in pairs:
                y = y[0] if np.ndim(y) > np.ndim(x) else y
                np.testing.assert_allclose(y, x, rtol=2e-4, atol=2e-5)
    for name in ("wdm/estimate", "wdm/loss"):
        value = np.ravel(same[name])[0]
        np.testing.assert_allclose(value, np.ravel(metrics[name])[0], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (config({"objective": "wdm"}), "roles.wdm.model: objective is 'wdm'"),
        (config({"bound": "none"}), "grows without limit"),
        (
            config({"objective": "cpc"}),
            "is for unconstrained critics, but bilinear_bjorck is Lipschitz",
        ),
        (config({"kind": "linear"}), "kind: no critic 'linear'"),
        (config({"sides": 3}), "sides is 3"),
        (config({"own_layer": "middle"}), "no layer 'middle'"),
        (config({"kind": "concat"}, penalty=0.0), "penalty"),
        (config({"kind": "concat"}, penalty=-1.0), "penalty"),
    ],
)
def test_errors_are_one_line(settings, words):
    with pytest.raises(UserError) as caught:
        build(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_batch_of_one_has_no_negatives():
    with pytest.raises(UserError, match="a batch of one pair has no negatives"):
        train(config(batch_size=1), steps=1)
