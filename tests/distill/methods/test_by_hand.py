"""Every method's loss against its definition in float64 numpy, and stopped gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import models
from kdjax.distill import Player, co_train
from kdjax.errors import UserError
from kdjax.experiment.build.schedules import weight_schedule
from kdjax.experiment.config.schema import Term, WeightRamp
from tests.distill.methods import tables

BATCH = tables.batch(5)
CLOSE = {"rtol": 2e-5, "atol": 1e-6}  # float32 sums of 16 examples against float64


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(target, own, temperature=1.0):
    """Return KL(target || own) of logits, per example."""
    p, q = log_softmax(target / temperature), log_softmax(own / temperature)
    return (np.exp(p) * (p - q)).sum(-1)


def ce(z, label):
    return -log_softmax(z)[np.arange(len(label)), label]


def entropy(z):
    return -(np.exp(log_softmax(z)) * log_softmax(z)).sum(-1)


def evaluate_method(method):
    """Return losses and metrics of a method on MLPs, and their logits."""
    table, variables, batch = tables.players(method, "mlp"), tables.make_variables("mlp"), BATCH
    total, _, aux = tables.evaluator(table)(variables, batch)
    return total, aux, tables.logits(table, variables, batch), batch["label"]


def test_alone_is_cross_entropy():
    total, aux, z, label = evaluate_method("alone")
    assert np.allclose(total, ce(z["teacher"], label).mean() + ce(z["student"], label).mean())
    right = np.mean(z["student"].argmax(-1) == label)
    assert np.allclose(aux.metrics["student/accuracy"], right)


def test_offline_distillation_has_hintons_weights():
    table = tables.players("kd", "mlp")
    toward = {"toward": ("teacher",), "scalars": {"temperature": 4.0, "weight": 0.9}}
    student = {
        "ce": tables.term("ce", scalars={"weight": 0.1}),
        "forward_kl": tables.term("forward_kl", **toward),
    }
    table["student"] = Player(table["student"].model, student)
    variables, batch = tables.make_variables("mlp"), BATCH
    total, _, aux = tables.evaluator(table)(variables, batch)
    z = tables.logits(table, variables, batch)
    far = kl(z["teacher"], z["student"], 4.0).mean()
    expected = 0.1 * ce(z["student"], batch["label"]).mean() + 0.9 * 16 * far
    assert np.allclose(total, expected, **CLOSE)
    assert np.allclose(aux.metrics["student/forward_kl/raw"], far, **CLOSE)
    assert np.allclose(aux.metrics["student/forward_kl/weighted"], 0.9 * 16 * far, **CLOSE)
    assert "teacher/loss" not in aux.metrics
    assert "teacher/accuracy" in aux.metrics


def test_mutual_learning_averages_over_the_peers():
    roles = ("a", "b", "c")
    table = {}
    for width, role in enumerate(roles, start=6):
        others = tuple(r for r in roles if r != role)
        model = models.build("mlp", num_classes=tables.CLASSES, hidden=(width,))
        own = {"ce": tables.term("ce"), "forward_kl": tables.term("forward_kl", toward=others)}
        table[role] = Player(model, own)
    variables, batch = jax.jit(co_train(table).init)(jax.random.key(0), BATCH), BATCH
    _, _, aux = tables.evaluator(table)(variables, batch)
    z = tables.logits(table, variables, batch)
    for role in roles:
        peers = [kl(z[other], z[role]).mean() for other in roles if other != role]
        expected = ce(z[role], batch["label"]).mean() + sum(peers) / 2
        assert np.allclose(aux.metrics[f"{role}/loss"], expected, **CLOSE)


def test_bdkd():
    total, aux, z, label = evaluate_method("bdkd")
    t, s = z["teacher"], z["student"]
    forward = np.where(entropy(t) > entropy(s), 2.0, 1.0)
    reverse = np.where(entropy(s) > entropy(t), 2.0, 1.0)
    assert {1.0, 2.0} == set(forward), "both sides of the rule must occur for this test to tell"
    balanced = (forward * kl(t, s, 2.0) + reverse * kl(s, t, 2.0)).mean()
    student = ce(s, label).mean() + 4 * balanced
    teacher = ce(t, label).mean() + 4 * kl(s, t, 2.0).mean()
    assert np.allclose(aux.metrics["student/balanced_kl/raw"], balanced, **CLOSE)
    assert np.allclose(aux.metrics["student/loss"], student, **CLOSE)
    assert np.allclose(aux.metrics["teacher/loss"], teacher, **CLOSE)
    assert np.allclose(total, student + teacher, **CLOSE)


def test_kdcl():
    _, aux, z, label = evaluate_method("kdcl")
    both = np.stack([z["teacher"], z["student"]])
    of_label = np.take_along_axis(both, np.broadcast_to(label, (2, 16))[..., None], -1)
    target = (both - of_label).min(0)
    for role in ("teacher", "student"):
        expected = ce(z[role], label).mean() + 4 * kl(target, z[role], 2.0).mean()
        assert np.allclose(aux.metrics[f"{role}/loss"], expected, **CLOSE)


def test_switokd_signal():
    def l1(p, q):
        return np.abs(p - q).sum(-1).mean()

    table, seen = tables.players("switokd", "mlp"), set()
    evaluate = tables.evaluator(table)
    for factor, right in ((1, "teacher"), (1, "student"), (9, "teacher"), (9, "student")):
        variables = tables.scaled(tables.make_variables("mlp"), "teacher", factor)
        z = tables.logits(table, variables, BATCH)
        label = z[right].argmax(-1).astype(np.int32)
        _, _, aux = evaluate(variables, {**BATCH, "label": label})
        p, q = (np.exp(log_softmax(z[role])) for role in ("student", "teacher"))
        onehot = np.eye(tables.CLASSES)[label]
        a, b = l1(p, onehot), l1(q, onehot)
        expert = bool(l1(p, q) > a - np.exp(-b / (a + b)) * b and b < a)
        seen.add(expert)
        assert bool(aux.active["teacher"]) == (not expert)
        assert float(aux.metrics["teacher/active"]) == (not expert)
    assert seen == {True, False}, "both modes must occur for this test to tell"


@pytest.mark.parametrize("method", tables.METHODS)
def test_no_gradient_reaches_other_roles(method):
    table = tables.players(method, "mlp")
    variables, batch = tables.make_variables("mlp"), BATCH
    scalars = jax.tree.map(jnp.float32, tables.hparams(table))
    players = co_train(table)

    @jax.jit
    def pull_all(params):
        def losses(params):
            stats = {role: v.stats for role, v in variables.items()}
            _, aux = players.loss(params, stats, batch, scalars, jax.random.key(0), 0)
            return {role: aux.metrics[f"{role}/loss"] for role in players.trains}

        values, pull = jax.vjp(losses, params)
        return {
            role: pull({r: jnp.float32(r == role) for r in values})[0] for role in players.trains
        }

    grads = pull_all({role: v.params for role, v in variables.items()})
    for role, by_role in grads.items():
        for other, tree in by_role.items():
            moved = [bool(np.any(np.asarray(leaf) != 0)) for leaf in jax.tree.leaves(tree)]
            assert all(moved) if other == role else not any(moved), (role, other)


class TestTemperatureSquared:
    def table(self, temperature, squared):
        table = tables.players("kd", "mlp")
        kl = tables.term(
            "forward_kl",
            toward=("teacher",),
            scalars={"temperature": temperature},
            scale_by_temperature_squared=squared,
        )
        return {**table, "student": Player(table["student"].model, {"forward_kl": kl})}

    @pytest.mark.parametrize(("squared", "factor"), [(None, 9.0), (True, 9.0), (False, 1.0)])
    def test_raw_and_weighted(self, squared, factor):
        table = self.table(3.0, squared)
        total, _, aux = tables.evaluator(table)(tables.make_variables("mlp"), BATCH)
        raw = aux.metrics["student/forward_kl/raw"]
        assert np.allclose(aux.metrics["student/forward_kl/weighted"], factor * raw)
        assert np.allclose(total, factor * raw)

    def test_gradient_keeps_its_scale(self):
        # T^2 KL tends to a quadratic form in the logits, whose gradient does not depend on T
        norms = []
        for temperature in (20.0, 80.0):
            table = self.table(temperature, None)
            _, grads, _ = tables.evaluator(table)(tables.make_variables("mlp"), BATCH)
            norms.append(
                np.linalg.norm(
                    np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads["student"])])
                )
            )
        assert norms[0] == pytest.approx(norms[1], rel=0.1)

    def test_scaling_without_a_temperature_is_an_error(self):
        with pytest.raises(UserError, match="temperature_squared"):
            tables.term("ce", scale_by_temperature_squared=True)


RAMPS = {
    "linear": {0: 0.0, 4: 0.4, 25: 1.0},
    "sigmoid": {0: np.exp(-5), 5: np.exp(-1.25), 10: 1.0, 99: 1.0},
    "cosine": {0: 1.0, 5: 0.5, 10: 0.0, 99: 0.0},
    "piecewise": {0: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.0, 9: 0.0},
}


@pytest.mark.parametrize("name", RAMPS)
def test_ramp_follows_its_formula(name):
    table = WeightRamp(name=name, steps=10, boundaries=(3, 6), factors=(1.0, 0.5, 0.0))
    ramp = weight_schedule("term", Term(ramp=table))
    for step, value in RAMPS[name].items():
        assert float(ramp(jnp.int32(step))) == pytest.approx(value, abs=1e-6)


def test_ramp_multiplies_the_term():
    table = tables.players("kd", "mlp")
    own = {
        "ce": tables.term(
            "ce", scalars={"weight": 3.0}, weight_schedule=optax.linear_schedule(0.0, 1.0, 10)
        )
    }
    table["student"] = Player(table["student"].model, own)
    variables, evaluate = tables.make_variables("mlp"), tables.evaluator(table)
    for step, factor in ((0, 0.0), (5, 1.5), (30, 3.0)):
        _, _, aux = evaluate(variables, BATCH, float(step))
        raw = aux.metrics["student/ce/raw"]
        assert np.allclose(aux.metrics["student/ce/weighted"], factor * raw, rtol=1e-6)


@pytest.mark.parametrize("method", ["kdcl", "switokd", "bdkd"])
def test_a_mask_equals_slicing(method):
    table = tables.players(method, "mlp")
    variables, full, evaluate = tables.make_variables("mlp"), BATCH, tables.evaluator(table)
    sliced = {name: value[:11] for name, value in full.items()}
    padded = {**full, "mask": np.where(np.arange(16) < 11, 1, 0).astype(np.float32)}
    padded["image"] = full["image"].copy()
    padded["image"][11:] = np.nan
    padded["label"] = np.where(np.arange(16) < 11, full["label"], -1).astype(np.int32)
    total, grads, aux = evaluate(variables, sliced)
    total_padded, grads_padded, aux_padded = evaluate(variables, padded)
    for a, b in zip(
        jax.tree.leaves((total, grads, aux.metrics)),
        jax.tree.leaves((total_padded, grads_padded, aux_padded.metrics)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, **CLOSE)
