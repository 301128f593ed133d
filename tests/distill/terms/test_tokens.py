"""Terms on a language model's tokens against numpy: means over real tokens, then examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from kdjax import losses
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.errors import UserError
from kdjax.models import as_language_model
from kdjax.types import Model, Outputs, Variables

BATCH, POSITIONS, WORDS = 3, 4, 5
MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
SIDES = ("student", "teacher")


def outputs(seed):
    r = np.random.default_rng(seed)
    logits = 2 * r.normal(size=(BATCH, POSITIONS, WORDS)).astype("f4")
    logits[MASK == 0] = np.nan  # padding must have no effect
    return Outputs(
        jnp.zeros((BATCH, 2)),
        {
            "token_logits": jnp.asarray(logits),
            "token_mask": jnp.asarray(MASK),
            "token_targets": jnp.asarray(r.integers(0, WORDS, (BATCH, POSITIONS)), jnp.int32),
        },
    )


def by_hand(name, student, teacher, temperature):
    """Return the value of one token."""
    s, t = (
        log_softmax(np.float64(z.features["token_logits"]) / temperature, axis=-1)
        for z in (student, teacher)
    )
    p, q, m = np.exp(s), np.exp(t), np.log((np.exp(s) + np.exp(t)) / 2)
    targets = np.asarray(student.features["token_targets"])[..., None]
    return {
        "ce": -np.take_along_axis(s, targets, -1)[..., 0],
        "forward_kl": (q * (t - s)).sum(-1),
        "reverse_kl": (p * (s - t)).sum(-1),
        "jensen_shannon": ((q * (t - m)).sum(-1) + (p * (s - m)).sum(-1)) / 2,
        "total_variation": np.abs(p - q).sum(-1) / 2,
        "soft_cross_entropy": -(q * s).sum(-1),
        "hard_cross_entropy": -np.take_along_axis(s, q.argmax(-1)[..., None], -1)[..., 0],
    }[name]


NAMES = ["ce", "forward_kl", "reverse_kl", "jensen_shannon", "total_variation"]


@pytest.mark.parametrize("name", [*NAMES, "soft_cross_entropy", "hard_cross_entropy"])
def test_mean_over_the_real_tokens(name):
    spec = terms.TERM_SPECS[name](layer="token_logits")
    student, teacher = outputs(0), outputs(1)
    scalars = {k: scalar.default for k, scalar in spec.scalars.items()}
    temperature = 1.0
    if "temperature" in scalars:
        scalars["temperature"] = temperature = 3.0

    def value(logits):
        seen = student._replace(features={**student.features, "token_logits": logits})
        return spec.loss_fn(seen, (teacher,), {}, scalars)

    actual = value(student.features["token_logits"])
    each = by_hand(name, student, teacher, temperature)
    right = [each[0][MASK[0] > 0].mean(), each[1, 0], 0.0]
    np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-6)
    seen = {a for a, _ in spec.layers}
    assert seen == {"token_logits", "token_mask"} | ({"token_targets"} if name == "ce" else set())


def test_an_empty_layer_is_the_logits():
    r = np.random.default_rng(0)
    s, t = (r.normal(size=(BATCH, 2)).astype("f4") for _ in SIDES)
    spec = terms.TERM_SPECS["soft_cross_entropy"]()
    assert spec.layers == ()
    assert not spec.scale_by_temperature_squared
    actual = spec.loss_fn(Outputs(s, {}), (Outputs(t, {}),), {}, {"temperature": 2.0})
    right = -(np.exp(log_softmax(t / 2, axis=-1)) * log_softmax(s / 2, axis=-1)).sum(-1)
    np.testing.assert_allclose(actual, right, rtol=1e-5)


def test_regressions():
    s, t, label = np.array([[1.0], [3.0]]), np.array([[0.5], [-1.0]]), np.array([0.0, 5.0])
    student, teachers = Outputs(jnp.asarray(s), {}), (Outputs(jnp.asarray(t), {}),)
    mse, error = terms.TERM_SPECS["logit_mse"](), terms.TERM_SPECS["label_logit_mse"]()
    actual = mse.loss_fn(student, teachers, {}, {"temperature": 2.0})
    np.testing.assert_allclose(actual, ((s - t)[:, 0] / 2) ** 2, rtol=1e-6)
    assert not mse.scale_by_temperature_squared
    actual = error.loss_fn(student, (), {"label": label}, {})
    np.testing.assert_allclose(actual, (s[:, 0] - label) ** 2, rtol=1e-6)
    grad = jax.grad(lambda z: jnp.sum(error.loss_fn(Outputs(z, {}), (), {"label": label}, {})))(
        student.logits
    )
    np.testing.assert_allclose(grad, 2 * (s - label[:, None]), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_another_layer_is_an_error(name):
    with pytest.raises(UserError, match=r"layer is 'pooled'; it must be '' .* or 'token_logits'"):
        terms.TERM_SPECS[name](layer="pooled")


LABEL = np.where(MASK > 0, np.random.default_rng(7).integers(0, WORDS, MASK.shape), -1)


def language_model(seed):
    """Return a network of tokens whose parameters are the logits behind each token."""

    def init(key, batch):
        return Variables(2 * jax.random.normal(jax.random.key(seed), (WORDS, WORDS)), {})

    def apply(variables, batch, *, train, key=None):
        return Outputs(variables.params[batch["input_ids"]], {}), {}

    return as_language_model(Model(init, apply))


def token_batch():
    ids = np.random.default_rng(8).integers(0, WORDS, MASK.shape)
    real = np.ones_like(ids)
    return {"input_ids": ids, "attention_mask": real, "label": LABEL, "mask": np.ones(BATCH, "f4")}


def language_loss(name, axis_name=None, **options):
    """Return the term's share of a batch, and the logits of the two networks at all tokens."""
    spec = terms.TERM_SPECS[name](**options)
    toward = () if spec.teachers == "none" else ("teacher",)
    own = {name: terms.make_term(spec, toward=toward, scale_by_temperature_squared=False)}
    roles = {"student": own, "teacher": {}}
    players = {r: Player(language_model(i), t) for i, (r, t) in enumerate(roles.items())}
    method = co_train(players, axis_name=axis_name)
    params = {r: p.model.init(jax.random.key(0), token_batch()).params for r, p in players.items()}
    hparams = {r: player_hparams(p, learning_rate=0.1) for r, p in players.items()}

    def loss(batch):
        stats = {role: {} for role in players}
        _, aux = method.loss(params, stats, batch, hparams, jax.random.key(0))
        return aux.metrics[f"student/{name}/raw"]

    loss = loss if axis_name else jax.jit(loss)
    return loss, {role: p[token_batch()["input_ids"]] for role, p in params.items()}


@pytest.mark.parametrize("name", ["ce", "jensen_shannon"])
def test_a_language_model_averages_over_all_real_tokens(name):
    loss, logits = language_loss(name)
    student, teacher = (
        Outputs(None, {"token_logits": logits[side], "token_targets": LABEL}) for side in SIDES
    )
    right = by_hand(name, student, teacher, 1.0)[MASK > 0].mean()
    np.testing.assert_allclose(loss(token_batch()), right, rtol=1e-5)
    # devices have 3, 1 and 0 tokens
    shares = jax.jit(jax.vmap(language_loss(name, "data")[0], axis_name="data"))
    divided = shares(jax.tree.map(lambda x: np.asarray(x)[:, None], token_batch()))
    np.testing.assert_allclose(divided.sum(), right, rtol=1e-5)


def test_a_layer_averages_by_sequence_first():
    loss, logits = language_loss("forward_kl", layer="token_logits")
    sides = [Outputs(None, {"token_logits": z, "token_targets": LABEL}) for z in logits.values()]
    each = by_hand("forward_kl", *sides, 1.0)
    right = (each[0][MASK[0] > 0].mean() + each[1, 0]) / BATCH
    np.testing.assert_allclose(loss(token_batch()), right, rtol=1e-5)


def test_transport_between_tokens():
    options = {"epsilon": 0.1, "temperature": 2.0, "num_iters": 5}
    loss, logits = language_loss("sinkhorn", num_iters=5, average=True)
    flat = (logits[side].reshape(-1, WORDS) for side in SIDES)
    right = losses.sinkhorn(*flat, **options, mask=MASK.reshape(-1)).cost.sum() / MASK.sum()
    np.testing.assert_allclose(loss(token_batch()), right, rtol=1e-5)
    loss, _ = language_loss("sinkhorn", num_iters=5, per_sequence=True)
    rows = [
        losses.sinkhorn(*(logits[side][row] for side in SIDES), **options, mask=MASK[row])
        for row in (0, 1)
    ]
    right = sum(row.cost.sum() for row in rows) / MASK.sum()
    np.testing.assert_allclose(loss(token_batch()), right, rtol=1e-5)
