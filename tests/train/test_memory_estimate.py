"""Number of members that fit into memory: the estimate against known sizes."""

import jax
import jax.numpy as jnp
import pytest

from kdjax import models
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.train import memory_estimate
from kdjax.train.optimizer import make_optimizer
from kdjax.train.step import init_state


@pytest.mark.parametrize(
    ("members", "each", "free", "size"),
    [
        (45, 1, 10**6, 45),  # all at once
        (45, 1000, 20_000, 15),  # 16 would fit: three equal programs
        (4, 1000, 100, 1),  # at least one
        (1, 1000, 10**9, 1),
    ],
)
def test_the_fewest_programs_that_fit_are_equal(members, each, free, size):
    assert memory_estimate.fitting(members, each, free) == size


def test_estimate_includes_state_gradients_and_saved_activations():
    ce = terms.make_term(terms.cross_entropy())
    players = {"student": Player(models.build("mlp", num_classes=3, hidden=(8,)), {"ce": ce})}
    method = co_train(players)
    hparams = {"student": player_hparams(players["student"], learning_rate=0.1)}
    tx = {"student": make_optimizer("sgd")}

    def estimate(size):
        batch = {"image": jnp.zeros((size, 2, 2, 1)), "label": jnp.zeros(size, jnp.int32)}
        state = jax.eval_shape(
            lambda k, b: init_state(method, tx, k, b, hparams), jax.random.key(0), batch
        )
        return memory_estimate.tree_bytes(state.params), memory_estimate.member_bytes(
            method, state, batch
        )

    (params, small), (_, large) = estimate(10), estimate(1010)
    assert params == 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert small > 5 * params  # state twice (params and momentum), and the gradient
    assert large - small >= 1000 * 4 * (8 + 3)  # hidden layer and logits of each example


def test_free_memory_of_this_machine_is_plausible():
    assert 2**20 < memory_estimate.free_bytes(jax.devices()[0]) < 2**50
