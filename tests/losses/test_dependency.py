"""Dependency objectives and penalties against golden arrays and by hand.

The golden values are float64, kdjax's are float32. The tolerance of 2e-5 relative to the largest
entry is about a hundred roundings, the number of sums in a score.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.errors import UserError

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "dependency.npz")
PARAMS = {name: jnp.float32(GOLDEN[f"critic/{name}"]) for name in ("W1", "b1", "w2")}
S, T = (jnp.float32(GOLDEN[f"critic/{name}"]) for name in ("s", "t"))
MIX, PERMUTATION = jnp.float32(GOLDEN["critic/eps"]), jnp.asarray(GOLDEN["critic/perm"])


def critic(params, x, y):
    hidden = jnp.tanh(jnp.concatenate([x, y], axis=1) @ params["W1"].T + params["b1"])
    return hidden @ params["w2"]


def table(params, x, y):
    row = lambda a: critic(params, jnp.broadcast_to(a, (len(y), len(a))), y)  # noqa: E731
    return jax.vmap(row)(x)


def penalty(sides, at):
    points = {"mix": MIX, "permutation": PERMUTATION}
    return lambda params, s: losses.gradient_penalty(
        lambda x, y: critic(params, x, y), s, T, sides=sides, at=at, **points
    )


CASES = {
    "J_dual_all": lambda p, s: losses.dual_dependency(table(p, s, T)),
    "J_dual_off": lambda p, s: losses.dual_dependency(table(p, s, T), off_diagonal=True),
    "J_wpc": lambda p, s: losses.predictive_coding(table(p, s, T)),
    "gp_two_interp": penalty(2, "interpolated"),
    "gp_one_interp": penalty(1, "interpolated"),
    "gp_one_joint": penalty(1, "joint"),
}


def close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_match_golden_values(name):
    value, (own, side) = jax.jit(jax.value_and_grad(CASES[name], argnums=(0, 1)))(PARAMS, S)
    close(value, GOLDEN[f"critic/{name}"])
    for leaf, gradient in own.items():
        close(gradient, GOLDEN[f"critic/grad/{name}/{leaf}"])
    if f"critic/grad/{name}/s" in GOLDEN:
        close(side, GOLDEN[f"critic/grad/{name}/s"])


def test_scores_match_the_golden_critic():
    close(table(PARAMS, S, T), GOLDEN["critic/F"])


def test_a_cyclic_shift_leaves_no_true_pair():
    y = jnp.arange(4.0)[:, None]
    for seed in range(8):
        pairs = []

        def critic_of(x, other, pairs=pairs):
            jax.debug.callback(lambda v: pairs.append(np.asarray(v)), other)
            return jnp.sum(x, 1) + jnp.sum(other, 1)

        losses.gradient_penalty(critic_of, y, y, at="product", key=jax.random.key(seed))
        jax.effects_barrier()
        assert pairs
        assert not np.any(pairs[0] == np.asarray(y))


def test_slopes_below_one_are_penalised_only_two_sided():
    flat = lambda x, y: 0.5 * x[:, 0] + 0 * y[:, 0]  # noqa: E731
    assert losses.gradient_penalty(flat, S, T, at="joint") == 0
    np.testing.assert_allclose(losses.gradient_penalty(flat, S, T, at="joint", sides=2), 0.25)


def test_a_flat_critic_has_a_finite_gradient():
    value, gradient = jax.jit(
        jax.value_and_grad(
            lambda w: losses.gradient_penalty(lambda x, y: w * x[:, 0], S, T, at="joint", sides=2)
        )
    )(0.0)
    assert value == 1
    assert gradient == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.dual_dependency(jnp.zeros((2, 3))), "must be .batch, batch."),
        (lambda: losses.predictive_coding(jnp.zeros((1, 1))), "no negatives"),
        (lambda: penalty(3, "joint")(PARAMS, S), "sides: must be 1 or 2"),
        (lambda: penalty(1, "middle")(PARAMS, S), "at: must be one of joint, product"),
        (lambda: losses.gradient_penalty(lambda x, y: x[:, 0], S, T), "give a key"),
        (lambda: losses.gradient_penalty(lambda x, y: x[:, 0], S, T[:2]), "one batch"),
        (
            lambda: losses.gradient_penalty(
                lambda x, y: x[:, 0], S[:1], T[:1], key=jax.random.key(0)
            ),
            "a batch of 1 has no false pair",
        ),
    ],
)
def test_errors_name_the_problem(call, words):
    with pytest.raises(UserError, match=words):
        call()
