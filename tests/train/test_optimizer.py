"""Optimizers against the update rules written out in numpy, and against optax; schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import models
from kdjax.distill import Player, co_train, player_hparams
from kdjax.distill.terms import cross_entropy, make_term
from kdjax.errors import UserError
from kdjax.experiment.build.schedules import learning_rate_schedule
from kdjax.train.optimizer import make_optimizer
from kdjax.train.step import init_state, make_step

CONSTANT = optax.constant_schedule(1.0)
PARAMS = {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, "f4")}
STEPS = 4


def gradient(number):
    rng = np.random.default_rng(number)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), PARAMS)


def descend(optimizer, rate=0.1, decay=0.0, grad=gradient):
    """Return parameters after a few steps; rate and decay are traced, as in the compiled step."""

    @jax.jit
    def step(params, state, grads, scalars):
        updates, state = optimizer(scalars).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    scalars = {"learning_rate": jnp.float32(rate), "weight_decay": jnp.float32(decay)}
    params, state = PARAMS, optimizer(scalars).init(PARAMS)
    for number in range(STEPS):
        params, state = step(params, state, grad(number), scalars)
    return params


def torch_sgd(rate, momentum, nesterov, decay):
    """Apply PyTorch's rule: decay is added to the gradient; the first momentum is the gradient."""
    params = {name: np.float64(x) for name, x in PARAMS.items()}
    buffers = {}
    for number in range(STEPS):
        for name, g in gradient(number).items():
            d = np.float64(g) + decay * params[name]
            if momentum:
                buffers[name] = momentum * buffers[name] + d if name in buffers else d
                d = d + momentum * buffers[name] if nesterov else buffers[name]
            params[name] = params[name] - rate * d
    return params


def torch_adam(rate, decay):
    params = {name: np.float64(x) for name, x in PARAMS.items()}
    first = dict.fromkeys(params, 0.0)
    second = dict(first)
    for number in range(STEPS):
        for name, g in gradient(number).items():
            g = np.float64(g) + decay * params[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            m, v = (
                first[name] / (1 - 0.9 ** (number + 1)),
                second[name] / (1 - 0.999 ** (number + 1)),
            )
            params[name] = params[name] - rate * m / (np.sqrt(v) + 1e-8)
    return params


def assert_close(actual, expected, rtol=2e-5):
    for name in PARAMS:
        np.testing.assert_allclose(actual[name], expected[name], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "decay"),
    [(0.0, False, 0.0), (0.9, False, 5e-2), (0.9, True, 5e-2)],
)
def test_sgd_matches_pytorch(momentum, nesterov, decay):
    sgd = make_optimizer("sgd", CONSTANT, momentum=momentum, nesterov=nesterov)
    assert_close(descend(sgd, 0.1, decay), torch_sgd(0.1, momentum, nesterov, decay))


def test_adam_matches_pytorch():
    assert_close(descend(make_optimizer("adam", CONSTANT), 0.01, 0.1), torch_adam(0.01, 0.1))


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_decoupled_decay_matches_optax(name):
    make = {"adamw": optax.adamw, "lion": optax.lion}[name]
    other = make(0.01, b1=0.9, weight_decay=0.3)
    actual = descend(make_optimizer(name, CONSTANT), 0.01, 0.3)
    assert_close(actual, descend(lambda scalars: other))


def test_decay_can_exclude_vectors():
    sgd = make_optimizer("sgd", CONSTANT, decay="kernels")
    actual = descend(sgd, 0.1, 0.3, grad=lambda _: jax.tree.map(np.zeros_like, PARAMS))
    assert np.array_equal(actual["bias"], PARAMS["bias"])
    assert not np.allclose(actual["kernel"], PARAMS["kernel"])


def test_clip_uses_the_norm_over_all_arrays():
    plain = make_optimizer("sgd", CONSTANT, momentum=0.0)
    clipped = make_optimizer("sgd", CONSTANT, momentum=0.0, clip_norm=0.5)

    def shrunk(number):
        grads = gradient(number)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        assert norm > 0.5
        return jax.tree.map(lambda g: g * (0.5 / norm), grads)

    assert_close(descend(clipped), descend(plain, grad=shrunk))


def test_rate_is_traced():
    traces = []

    def schedule(count):
        traces.append(1)
        return CONSTANT(count)

    optimizer = make_optimizer("sgd", schedule)

    @jax.jit
    def update(scalars):
        transform = optimizer(scalars)
        return transform.update(gradient(0), transform.init(PARAMS), PARAMS)[0]["bias"]

    small = update({"learning_rate": 0.1, "weight_decay": 0.0})
    large = update({"learning_rate": 0.3, "weight_decay": 0.0})
    np.testing.assert_allclose(large, 3 * small, rtol=1e-6)
    assert len(traces) == 1


SCHEDULES = {
    "constant": ({}, {0: 1, 100: 1}),
    "step": ({"boundaries": (4, 8), "factor": 0.1}, {0: 1, 3: 1, 4: 0.1, 7: 0.1, 8: 0.01, 9: 0.01}),
    "cosine": ({}, {0: 1, 5: 0.5, 10: 0, 12: 0}),
    "linear": ({}, {0: 1, 5: 0.5, 10: 0, 12: 0}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    options, values = SCHEDULES[name]
    schedule = learning_rate_schedule(name, num_steps=10, **options)
    for step, value in values.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6), step


def test_boundaries_behind_the_end_are_reported():
    with pytest.warns(UserWarning, match=r"boundaries is \(4, 8\), but the run has 8 steps"):
        learning_rate_schedule("step", num_steps=8, boundaries=(4, 8))


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_then_the_schedule_continues(name):
    options, _ = SCHEDULES[name]
    schedule = learning_rate_schedule(name, num_steps=12, warmup_steps=2, **options)
    assert [float(schedule(step)) for step in (0, 1, 2)] == pytest.approx([0, 0.5, 1])
    end = {"constant": 1, "step": 0.01, "cosine": 0, "linear": 0}[name]
    assert float(schedule(12)) == pytest.approx(end, abs=1e-6)
    if name == "step":  # boundaries count from the start of the run
        assert [float(schedule(s)) for s in (3, 4)] == pytest.approx([1, 0.1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make_optimizer("sdg", CONSTANT), "no optimizer 'sdg'; there are sgd, adam"),
        (lambda: make_optimizer("sgd", CONSTANT, clip_norm=0.0), "clip_norm is 0.0; .* > 0"),
        (lambda: make_optimizer("sgd", CONSTANT, decay="some"), "decay is 'some'; .*'kernels'"),
        (
            lambda: learning_rate_schedule("cosin", num_steps=3),
            "no schedule 'cosin'; there are constant",
        ),
        *(
            (
                lambda steps=steps: learning_rate_schedule(
                    "cosine", num_steps=3, warmup_steps=steps
                ),
                rf"schedule.warmup_steps is {steps}; .* from 0 to num_steps, 3",
            )
            for steps in (-1, 4, 0.5)
        ),
        *(
            (
                lambda steps=steps: learning_rate_schedule("step", num_steps=9, boundaries=steps),
                "schedule.boundaries is .*; it must be increasing whole numbers >= 0",
            )
            for steps in ((0.5,), (-1,), (4, 4), (5, 4))
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_a_role_that_was_paused_follows_the_schedule_of_the_run():
    """A state at step 3 with a new optimizer is that of a role that was paused for 3 steps."""
    model = models.build("mlp", num_classes=3, hidden=(4,))
    player = Player(model, {"ce": make_term(cross_entropy())})
    method = co_train({"student": player})
    batch = {"image": np.ones((2, 2, 2, 1), np.float32), "label": np.array([0, 2])}
    hparams = {"student": player_hparams(player, learning_rate=0.1)}
    moves = []
    for schedule in (CONSTANT, optax.linear_schedule(1.0, 0.0, 4)):
        tx = {"student": make_optimizer("sgd", schedule)}
        before = init_state(method, tx, jax.random.key(0), batch, hparams)
        after, _ = make_step(method, tx)(before._replace(step=jnp.int32(3)), batch)
        moves.append(jax.tree.map(lambda a, b: a - b, after.params, before.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, 0.25 * a, atol=1e-7), *moves)
