"""Critics with small networks: where they start, and which term trains which of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.distill import critics
from kdjax.errors import UserError
from kdjax.types import Outputs

RNG = np.random.default_rng(0)
BATCH = {"label": jnp.zeros(4, jnp.int32), "mask": jnp.ones(4)}


def outputs(width, size):
    maps = jnp.asarray(RNG.normal(size=(4, size, size, width)), jnp.float32)
    features = {"stage1": maps, "stage3": maps, "pooled": jnp.mean(maps, (1, 2))}
    return Outputs(jnp.zeros((4, 3)), features)


STUDENT, TEACHER = outputs(3, 4), outputs(6, 8)


def run(critic, names):
    """The values of a critic's terms, and the gradients of their sum in params and outputs."""
    variables = jax.jit(critic.init)(jax.random.key(0), STUDENT, TEACHER, BATCH)
    scalars = {n: {} for n in names}

    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def total(params, student):
        values, stats, _ = critic.loss(
            variables._replace(params=params), student, TEACHER, BATCH, scalars, jax.random.key(1)
        )
        return sum(jnp.mean(v) for v in values.values()), (values, stats)

    (_, (values, stats)), grads = jax.jit(total)(variables.params, STUDENT)
    return values, (variables, stats), grads


def moves(tree):
    return any(np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


def test_vid_starts_at_a_variance_of_five_and_trains_all_it_has():
    critic = critics.variational_information(own_layers=("stage1",), peer_layers=("stage3",))
    values, (variables, _), (grads, student) = run(critic, ["variational_information"])
    assert values["variational_information"].shape == (4,)
    log_scale = variables.params["0"]["log_scale"]
    np.testing.assert_allclose(jnp.log1p(jnp.exp(log_scale)), 5.0, rtol=1e-6)
    assert all(moves(x) for x in jax.tree.leaves(grads))
    assert moves(student.features["stage1"])


def test_the_paraphraser_learns_from_its_own_term_alone():
    critic = critics.factor_transfer()
    _, (before, stats), (grads, student) = run(critic, ["paraphrase"])
    assert moves(grads["paraphraser"])
    assert not moves((grads["translator"], student))
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before.stats, stats)
    assert all(jax.tree.leaves(changed["paraphraser"]["encoder"]))
    names = ["factor_transfer", "spatial_factor_transfer"]
    values, (before, stats), (grads, student) = run(critic, names)
    assert sorted(values) == names
    assert moves(grads["translator"])
    assert moves(student.features["stage3"])
    assert not moves(grads["paraphraser"])
    assert jax.tree.all(
        jax.tree.map(np.array_equal, before.stats["paraphraser"], stats["paraphraser"])
    )


def test_cc_trains_both_heads():
    critic = critics.correlation_congruence(width=5)
    values, _, (grads, student) = run(
        critic, ["correlation_congruence", "kernel_correlation_congruence"]
    )
    assert all(value.shape == () for value in values.values())
    assert moves(grads["student"])
    assert moves(grads["teacher"])
    assert moves(student.features["pooled"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: critics.factor_transfer(rate=0.0), "rate is 0.0; it must be > 0"),
        (lambda: critics.correlation_congruence(width=0), "width"),
        (
            lambda: critics.variational_information(own_layers=("stage1",)),
            "own_layers has 1 names and peer_layers 3",
        ),
        (
            lambda: run(critics.factor_transfer(own_layer="pooled"), ["paraphrase"]),
            "it reads maps .* but layer 'pooled' is",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
