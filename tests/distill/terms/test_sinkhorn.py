"""Transport terms inside a method: published weight, devices, logged metrics."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.types import Model, Outputs, Variables

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden" / "sinkhorn.npz")
POSITIONS, WORDS = 3, 5


def table_of_logits(name):
    """Return a network whose parameters are its logits."""
    return Model(
        lambda key, batch: Variables({}, {}),
        lambda variables, batch, *, train, key=None: (Outputs(variables.params[name], {}), {}),
    )


def linear(role):
    """Return a network with logits of examples and of three tokens each, linear in the input."""

    def apply(variables, batch, *, train, key=None):
        z = batch["x"] @ variables.params["w"]
        tokens = z.reshape(-1, POSITIONS, WORDS)
        features = {"token_logits": tokens, "token_mask": batch["token_mask"]}
        return Outputs(z[:, :4], features), {}

    return Model(lambda key, batch: Variables({}, {}), apply)


def term(name, *, toward=("teacher",), scalars=None, weight=1.0, schedule=None, **static):
    scalars = {"weight": weight, **(scalars or {})}
    spec = terms.TERM_SPECS[name](**static)
    return terms.make_term(spec, toward=toward, scalars=scalars, temperature_schedule=schedule)


def evaluate(own, batch, params, model, *, axis_name=None, step=0):
    """Return loss, gradient in the student's parameters, and metrics."""
    players = {"teacher": Player(model("teacher"), {}), "student": Player(model("student"), own)}
    method = co_train(players, axis_name=axis_name)
    hparams = {r: player_hparams(p, learning_rate=0.1) for r, p in players.items()}

    def loss(student):
        both = {**params, "student": student}
        return method.loss(both, {k: {} for k in both}, batch, hparams, jax.random.key(0), step)

    (value, aux), grad = jax.value_and_grad(loss, has_aux=True)(params["student"])
    result = value, grad, dict(aux.metrics)
    return result if axis_name is None else jax.lax.psum(result, axis_name)


@pytest.mark.parametrize("case", ["B4_C3_normal", "B4_C100_extremenoisy"])
def test_the_published_weight_gives_the_published_loss(case):
    s, t = (jnp.asarray(GOLDEN[f"{case}/{k}"], jnp.float32) for k in ("student", "teacher"))
    own = {"sinkhorn": term("sinkhorn", weight=1e-3)}
    params = {"teacher": {"teacher": t}, "student": {"student": s}}
    batch = {"label": np.zeros(4, np.int32)}
    value, grad, metrics = evaluate(own, batch, params, table_of_logits)
    right = GOLDEN[f"{case}/ref_grad_f64"]
    np.testing.assert_allclose(value, GOLDEN[f"{case}/ref_loss_f64"], rtol=1e-5)
    np.testing.assert_allclose(grad["student"], right, atol=1e-4 * np.abs(right).max())
    assert metrics["student/sinkhorn/iterations"] == 20
    assert metrics["student/sinkhorn/converged"] == (metrics["student/sinkhorn/row_error"] <= 0.01)


def batch_of(count, seed=0):
    """Return a batch in which some examples and some tokens are padding."""
    r = np.random.default_rng(seed)
    real = np.arange(count) % 5 != 3
    return {
        "x": np.where(real[:, None], r.normal(size=(count, 6)), np.nan).astype("f4"),
        "label": np.zeros(count, np.int32),
        "mask": real.astype("f4"),
        "token_mask": (r.random((count, POSITIONS)) < 0.7).astype("f4"),
    }


def weights(seed=1):
    r = np.random.default_rng(seed)
    roles = ("teacher", "student")
    return {k: {"w": r.normal(size=(6, POSITIONS * WORDS)).astype("f4")} for k in roles}


OWN = {
    "sinkhorn": functools.partial(term, "sinkhorn"),
    "tokens": functools.partial(term, "sinkhorn", layer="token_logits"),
    "tolerance": functools.partial(term, "sinkhorn", tolerance=0.5, num_iters=200),
    "debiased": functools.partial(term, "sinkhorn_divergence"),
}


@pytest.mark.long  # as tests/train/test_devices.py does of other coupled terms
def test_eight_devices_share_the_global_batch():
    own, batch, params = {k: make() for k, make in OWN.items()}, batch_of(16), weights()
    one = jax.jit(lambda b: evaluate(own, b, params, linear))(batch)
    split = {k: v.reshape(8, 2, *v.shape[1:]) for k, v in batch.items()}
    run = functools.partial(evaluate, own, params=params, model=linear, axis_name="data")
    eight = jax.pmap(run, axis_name="data")(split)
    assert one[2]["student/sinkhorn/raw"] > 0.1
    assert 0 < one[2]["student/tolerance/iterations"] < 200
    assert one[2]["student/tolerance/converged"] == 1
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(b[3], a, rtol=2e-5, atol=2e-5)


def test_padding_of_examples_and_tokens_has_no_effect():
    own = {"sinkhorn": term("sinkhorn"), "tokens": term("sinkhorn", layer="token_logits")}
    batch, params = batch_of(8), weights()
    unpadded = {k: v[batch["mask"] > 0] for k, v in batch.items()}
    run = jax.jit(lambda b: evaluate(own, b, params, linear)[2])
    padded, short = run(batch), run(unpadded)
    real = batch["token_mask"][batch["mask"] > 0].reshape(-1) > 0
    flat = [
        (unpadded["x"] @ params[role]["w"]).reshape(-1, WORDS)[real]
        for role in ("student", "teacher")
    ]
    rows = {"label": np.zeros(len(flat[0]), np.int32)}
    logits = {"student": {"student": flat[0]}, "teacher": {"teacher": flat[1]}}
    alone = {"sinkhorn": term("sinkhorn")}
    value, _, _ = jax.jit(lambda x: evaluate(alone, rows, x, table_of_logits))(logits)
    np.testing.assert_allclose(padded["student/sinkhorn/raw"], short["student/sinkhorn/raw"], 1e-5)
    np.testing.assert_allclose(padded["student/tokens/raw"], value, 1e-5)


def test_logged_metrics_are_means_over_the_peers():
    own = {"sinkhorn": term("sinkhorn", toward=("teacher", "other"))}
    z = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("f4") * 6
    params = {k: {k: x} for k, x in zip(("teacher", "other", "student"), z, strict=True)}
    players = {k: Player(table_of_logits(k), own if k == "student" else {}) for k in params}
    hparams = {k: player_hparams(p, learning_rate=0.1) for k, p in players.items()}
    batch = {"label": np.zeros(4, np.int32)}
    stats = {k: {} for k in players}
    _, aux = co_train(players).loss(params, stats, batch, hparams, jax.random.key(0), 0)
    alone = []
    for peer in ("teacher", "other"):
        pair = {"teacher": {"teacher": params[peer][peer]}, "student": params["student"]}
        alone.append(evaluate({"sinkhorn": term("sinkhorn")}, batch, pair, table_of_logits)[2])
    for key in ("raw", "row_error", "iterations"):
        name = f"student/sinkhorn/{key}"
        np.testing.assert_allclose(aux.metrics[name], np.mean([m[name] for m in alone]), rtol=1e-5)


class TestAnneal:
    def test_temperature_and_its_square_decrease_linearly(self):
        z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f4")
        params = {"teacher": {"teacher": z[0]}, "student": {"student": z[1]}}
        batch = {"label": np.zeros(4, np.int32)}
        name = "student/forward_kl/weighted"
        own = {
            "forward_kl": term(
                "forward_kl",
                scalars={"temperature": 4.0},
                schedule=terms.TemperatureSchedule(1.0, 6),
            )
        }
        run = jax.jit(lambda step: evaluate(own, batch, params, table_of_logits, step=step)[2])
        for step, temperature in ((0, 4.0), (2, 3.0), (5, 1.5), (6, 1.0), (100, 1.0)):
            right = {"forward_kl": term("forward_kl", scalars={"temperature": temperature})}
            expected = evaluate(right, batch, params, table_of_logits)[2][name]
            np.testing.assert_allclose(run(step)[name], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("name", "schedule", "text"),
        [
            (
                "forward_kl",
                terms.TemperatureSchedule(1.0, 0),
                r"anneal\.steps is 0; it must be >= 1",
            ),
            ("forward_kl", terms.TemperatureSchedule(0.0, 5), r"anneal\.to is 0; it must be > 0"),
            (
                "feature_mse",
                terms.TemperatureSchedule(1.0, 5),
                "anneal is set on a term that has no temperature",
            ),
        ],
    )
    def test_schedule_errors(self, name, schedule, text):
        with pytest.raises(UserError, match=text):
            term(name, schedule=schedule)


@pytest.mark.parametrize(
    ("static", "text"),
    [
        ({"num_iters": 0}, "num_iters is 0; it must be >= 1"),
        ({"tolerance": -1.0}, "tolerance is -1; it must be > 0, or 0 for fixed iterations"),
        ({"tolerance": math.nan}, "tolerance is nan; it must be > 0, or 0 for fixed iterations"),
        ({"layer": "pooled"}, r"layer is 'pooled'; it must be '' \(the logits\) or 'token_logits'"),
    ],
)
@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn_divergence"])
def test_option_errors(name, static, text):
    with pytest.raises(UserError, match=text):
        terms.TERM_SPECS[name](**static)


@pytest.mark.parametrize("option", [{"layer": "token_logits"}, {"average": True}])
def test_transport_of_each_sequence_has_no_other_rows(option):
    (name,) = option
    with pytest.raises(UserError, match=f"{name} and per_sequence are set; .* remove {name}"):
        terms.sinkhorn(per_sequence=True, **option)


class TestConfig:
    def build(self, **scalars):
        network = {"model": {"name": "mlp", "hidden": (4,)}}
        student = {"ce": {}, **{name: {"toward": "teacher", **x} for name, x in scalars.items()}}
        roles = {
            "teacher": {**network, "terms": {"ce": {}}},
            "student": {**network, "terms": student},
        }
        data = {"name": "synthetic", "num_classes": 4}
        return build({"devices": 1, "num_steps": 4, "batch_size": 8, "data": data, "roles": roles})

    def test_a_table_becomes_a_term(self):
        anneal = {"to": 1, "steps": 30}
        run = self.build(
            sinkhorn={"num_iters": 5, "epsilon": 0.2, "weight": 1e-3},
            soft_cross_entropy={"temperature": 4.0, "anneal": anneal},
        )
        result = run.variants[0].players["student"].terms
        right = {"weight": 1e-3, "temperature": 2.0, "epsilon": 0.2}
        assert dict(result["sinkhorn"].scalars) == right
        assert result["soft_cross_entropy"].temperature_schedule == terms.TemperatureSchedule(
            1.0, 30
        )
        assert result["sinkhorn"].temperature_schedule is None

    @pytest.mark.parametrize(
        ("name", "scalars", "text"),
        [
            ("sinkhorn", {"num_iters": 0}, "num_iters is 0; it must be >= 1"),
            ("sinkhorn", {"epsilon": 0.0}, "epsilon is 0; it must be > 0"),
            ("forward_kl", {"layer": "words"}, "layer is 'words'; it must be "),
            ("forward_kl", {"anneal": {"to": 1.0}}, r"anneal\.steps is 0; it must be >= 1"),
        ],
    )
    def test_errors_name_the_term(self, name, scalars, text):
        with pytest.raises(UserError, match=rf"^config: roles\.student\.terms\.{name}: {text}"):
            self.build(**{name: scalars})
