"""Players whose rows are not examples: labels and masks of rows, and shared regions.

The networks are linear and have rows like a detector: two regions for each example.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.types import Model, Outputs, Variables

CLASSES, WIDTH, REGIONS = 3, 4, 2


def batch_of():
    rng = np.random.default_rng(0)
    return {
        "x": jnp.array(rng.normal(size=(4, REGIONS, WIDTH)), jnp.float32),
        "label": jnp.zeros(4, jnp.int32),
        "mask": jnp.array([1.0, 1.0, 1.0, 0.0]),
    }


def regional(offset=0.0):
    """Return a network on the regions of its batch, or on its own regions, shifted by `offset`."""

    def init(key, batch):
        return Variables({"w": jax.random.normal(key, (WIDTH, CLASSES))}, {})

    def apply(variables, batch, *, train, key=None):
        region = batch.get("region", batch["x"] + offset)
        flat = region.reshape(-1, WIDTH)
        label = jnp.arange(len(flat)) % CLASSES
        real = jnp.repeat(batch["mask"], REGIONS) * (jnp.arange(len(flat)) != 1)
        features = {
            "pooled": flat,
            "region": region,
            "row_label": label,
            "row_mask": real,
            "anchor_logits": flat[:3, 0] * jnp.sum(variables.params["w"]),
            "anchor_label": jnp.array([1, 0, 1]),
            "anchor_mask": jnp.array([1.0, 0.0, 1.0]),
        }
        return Outputs(flat @ variables.params["w"], features), variables.stats

    return Model(init, apply)


def value(players, key=0):
    method = co_train(players)
    batch = batch_of()
    variables = method.init(jax.random.key(key), batch)
    params = {role: v.params for role, v in variables.items()}
    stats = {role: v.stats for role, v in variables.items()}
    hparams = {role: player_hparams(p, learning_rate=0.1) for role, p in players.items()}
    total, aux = method.loss(params, stats, batch, hparams, jax.random.key(1))
    return total, aux, params


def test_terms_average_over_real_rows():
    players = {"student": Player(regional(), {"ce": terms.make_term(terms.cross_entropy())})}
    total, aux, params = value(players)
    z = np.asarray(batch_of()["x"], np.float64).reshape(-1, WIDTH) @ np.asarray(
        params["student"]["w"]
    )
    label = np.arange(8) % CLASSES
    each = np.log(np.exp(z).sum(1)) - z[np.arange(8), label]
    real = [0, 2, 3, 4, 5]  # row 1 is not real, the last example is masked
    np.testing.assert_allclose(total, each[real].mean(), rtol=1e-5)
    right = (z.argmax(1) == label)[real].mean()
    np.testing.assert_allclose(aux.metrics["student/accuracy"], right, rtol=1e-6)


def test_a_term_may_use_other_rows():
    players = {
        "student": Player(
            regional(), {"binary_cross_entropy": terms.make_term(terms.binary_cross_entropy())}
        )
    }
    total, _, params = value(players)
    logits = batch_of()["x"].reshape(-1, WIDTH)[:3, 0] * jnp.sum(params["student"]["w"])
    each = losses.binary_cross_entropy(logits, jnp.array([1, 0, 1]))
    np.testing.assert_allclose(total, (each[0] + each[2]) / 2, rtol=1e-5)


def test_a_guest_uses_given_regions_and_returns_no_gradient():
    kl = lambda peer: {"forward_kl": terms.make_term(terms.forward_kl(), toward=(peer,))}  # noqa: E731
    shares = ("student", ("region",))
    players = {
        "teacher": Player(regional(5.0), kl("student"), shares=shares),  # evaluated last
        "student": Player(regional(1.0), kl("teacher")),
    }
    total, aux, params = value(players)
    rows = batch_of()["x"].reshape(-1, WIDTH) + 1.0  # the student's regions for both
    seen = aux.outputs["teacher"].features["pooled"]
    np.testing.assert_allclose(seen[:6], rows[:6])  # the last example is masked
    z = {role: rows @ params[role]["w"] for role in params}
    for own, peer in (("student", "teacher"), ("teacher", "student")):
        each = losses.forward_kl(z[own], z[peer])
        expected = jnp.mean(each[jnp.array([0, 2, 3, 4, 5])])
        np.testing.assert_allclose(aux.metrics[f"{own}/forward_kl/raw"], expected, rtol=1e-5)
    assert total > 0


def test_regions_come_from_a_player_that_samples_them():
    ce = {"ce": terms.make_term(terms.cross_entropy())}
    for shares, expected in (
        ({"a": ("b", ("region",)), "b": ("a", ("region",))}, "takes its own from another role"),
        ({"a": ("c", ("region",)), "b": None}, "which is not another player"),
        ({"a": ("a", ("region",)), "b": None}, "which is not another player"),
    ):
        players = {role: Player(regional(), ce, shares=shares[role]) for role in shares}
        with pytest.raises(ValueError, match=expected):
            co_train(players)
