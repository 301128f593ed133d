"""Lipschitz layers against golden arrays and SVD; critics against a search for steep pairs.

Golden arrays are float64, kdjax's float32: 20 Bjorck iterations add roundings of 1e-7 each.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import bounds, losses
from kdjax.errors import UserError
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.models.lipschitz import pair_critic as critics

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden" / "dependency.npz")
KEY = jax.random.key(0)
KINDS = [kind for kind in critics.KINDS if kind != "bilinear"]


def points(seed, *widths, count=12):
    rng = np.random.default_rng(seed)
    return [jnp.float32(rng.normal(size=(count, width))) for width in widths]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("shape", ["4x4", "6x3"])
def test_bjorck_iterations_match_golden_values(shape, order):
    start = jnp.float32(GOLDEN[f"bjorck/{shape}/W"] / GOLDEN[f"bjorck/{shape}/sigma_max"])
    for number in (1, 5, 20):
        iterate = lipschitz.bjorck_iterations(start, order=order, num_iters=number)
        expected = GOLDEN[f"bjorck/{shape}/order{order}_it{number}"]
        np.testing.assert_allclose(iterate, expected, atol=5e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_bjorck_norm_is_at_most_one_and_converges_to_the_polar_factor(order):
    kernel = jnp.float32(GOLDEN["bjorck/6x3/W"])
    actual = np.asarray(lipschitz.bjorck(kernel, order=order), np.float64)
    assert np.linalg.norm(actual, 2) <= 1 + 1e-6
    np.testing.assert_allclose(actual, GOLDEN["bjorck/6x3/polar"], atol=1e-4)
    wide = jax.random.normal(KEY, (5, 9))
    assert np.linalg.norm(np.asarray(lipschitz.bjorck(wide, order=order)), 2) <= 1 + 1e-6


def harsh_kernels():
    rng = np.random.default_rng(0)
    yield "rank 2", rng.normal(size=(64, 2)) @ rng.normal(size=(2, 64))
    yield "images to 64", rng.normal(size=(784, 64))
    yield "wide", rng.normal(size=(16, 256))
    yield "columns of sizes 1e-6 to 1e6", rng.normal(size=(96, 64)) * np.logspace(-6, 6, 64)
    yield "tiny", 1e-30 * rng.normal(size=(32, 16))
    yield "huge", 1e37 * rng.normal(size=(32, 16))
    yield "zeros", np.zeros((8, 4))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("name", "kernel"), harsh_kernels())
def test_bjorck_of_harsh_kernels_never_stretches(name, kernel, order):
    for count in (25, 100):
        iterate = lipschitz.bjorck(jnp.float32(kernel), order=order, num_iters=count)
        sizes = np.linalg.svd(np.asarray(iterate, np.float64), compute_uv=False)
        assert sizes[0] <= 1 + 1e-6, (name, count)  # NaN fails, too
        assert sizes[0] > 1 - 1e-6 or name == "zeros"


def test_bjorck_of_a_large_kernel_of_rank_1():
    iterate = lipschitz.bjorck(jnp.ones((1024, 1024)), num_iters=2)
    np.testing.assert_allclose(iterate, np.full((1024, 1024), 1 / 1024), rtol=1e-5)


def test_products_of_constrained_layers_are_in_full_float32():
    kernel, vector = jnp.ones((4, 3)), jnp.ones(3) / 3**0.5
    for function in (lipschitz.bjorck, lambda k: lipschitz.spectral_dense(k, vector)[0]):
        text = str(jax.make_jaxpr(jax.grad(lambda k, f=function: jnp.sum(f(k))))(kernel))
        assert text.count("dot_general") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 0


@pytest.mark.parametrize(("groups", "size"), [(6, 2), (4, 3), (3, 4), (1, 12)])
def test_group_sort_matches_golden_values(groups, size):
    expected = GOLDEN[f"groupsort/num_units{groups}_size{size}"]
    actual = lipschitz.group_sort(jnp.float32(GOLDEN["groupsort/x"]), size=size)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_equal_neighbours_share_the_gradient():
    weights = jnp.float32([1.0, 10.0] * 3)
    slope = jax.grad(lambda x: jnp.sum(weights * lipschitz.group_sort(x)))
    actual = slope(jnp.float32([3.0, 1.0, 2.0, 2.0, 0.0, 0.0]))
    np.testing.assert_array_equal(actual, [10.0, 1.0, 5.5, 5.5, 5.5, 5.5])


def test_spectral_dense_finds_the_largest_singular_value():
    kernel = jax.random.normal(KEY, (7, 4))
    vector = lipschitz.start_vector(jax.random.key(1), (4,))
    actual, after = lipschitz.spectral_dense(kernel, vector, num_iters=200)
    np.testing.assert_allclose(np.linalg.norm(actual, 2), 1, rtol=1e-5)
    norm, same = lipschitz.spectral_dense(kernel, after, num_iters=0)
    np.testing.assert_array_equal(same, after)
    np.testing.assert_allclose(norm, actual, rtol=1e-5)


@pytest.mark.parametrize(("strides", "padding"), [((1, 1), "SAME"), ((2, 2), "VALID")])
def test_spectral_conv_is_the_norm_of_the_operator(strides, padding):
    kernel = jax.random.normal(KEY, (3, 3, 2, 3))
    vector = lipschitz.start_vector(jax.random.key(1), (6, 5, 2))
    actual, _ = lipschitz.spectral_conv(
        kernel, vector, strides=strides, padding=padding, num_iters=300
    )
    form = ("NHWC", "HWIO", "NHWC")
    operator = lambda x: jax.lax.conv_general_dilated(  # noqa: E731
        x.reshape(1, 6, 5, 2), actual, strides, padding, dimension_numbers=form
    ).ravel()
    matrix = jax.jacrev(operator)(jnp.zeros(60))
    np.testing.assert_allclose(np.linalg.norm(np.asarray(matrix, np.float64), 2), 1, rtol=1e-4)
    flat = np.asarray(actual).reshape(-1, 3)
    assert np.linalg.norm(flat, 2) < 0.9  # the norm of the reshaped kernel differs


@pytest.mark.parametrize("kind", critics.KINDS)
def test_pairs_are_the_diagonal_of_scores(kind):
    x, y = points(0, 3, 5)
    critic = critics.build(kind, width=8, depth=2)
    variables = critic.init(KEY, x, y)
    scores, stats = critic.scores(variables, x, y[:7], train=False)
    assert scores.shape == (12, 7)
    jax.tree.map(np.testing.assert_array_equal, stats, variables.stats)
    expected = critic.pairs(variables, x[:7], y[:7])
    np.testing.assert_allclose(jnp.diagonal(scores[:7]), expected, rtol=2e-5, atol=2e-6)


def test_pairs_of_different_lengths_are_errors():
    x, y = points(0, 3, 4, count=4)
    critic = critics.build("bilinear", width=4)
    variables = critic.init(KEY, x, y)
    with pytest.raises(UserError, match=r"4 x and 1 y"):
        critic.pairs(variables, x, y[:1])


def test_products_do_not_use_the_default_precision():
    x, y = points(0, 3, 4, count=4)
    critic = critics.build("bilinear_bjorck", width=4)
    variables = critic.init(KEY, x, y)
    for call in (critic.pairs, functools.partial(critic.scores, train=True)):
        program = str(jax.make_jaxpr(call)(variables, x, y))
        assert program.count("dot_general[") == program.count("HIGHEST") / 2 > 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_is_steeper_than_the_certificate(kind):
    """Search by gradient ascent for two points whose scores differ more than allowed."""
    critic = critics.build(kind, width=8, depth=2, radius=0.7)
    x, y = points(1, 3, 4, count=64)
    variables = critic.init(KEY, x, y)
    bound = critic.upper_bound(variables)
    assert critic.constrained == (bound < 1.1)

    def steepness(ends):
        (a, b), (c, d) = ends
        rise = critic.pairs(variables, a, b) - critic.pairs(variables, c, d)
        squared = jnp.sum((a - c) ** 2, 1) + jnp.sum((b - d) ** 2, 1)
        return rise / jnp.sqrt(squared + 1e-8)

    step = jax.jit(jax.grad(lambda ends: jnp.sum(steepness(ends))))
    ends = ((x, y), (x + 0.3, y - 0.2))
    for _ in range(60):
        ends = jax.tree.map(lambda p, g: p + 0.1 * g, ends, step(ends))
    steepest = float(jnp.max(steepness(ends)))
    assert steepest <= bound * (1 + 1e-4)
    assert steepest > 0.1 * bound  # the search makes progress
    assert critics.measured_slope(critic, variables, x, y) <= bound * (1 + 1e-4)


def test_unbounded_critics_have_no_certificate():
    x, y = points(0, 3, 3)
    critic = critics.build("bilinear", width=4)
    with pytest.raises(UserError, match=r"no Lipschitz constant.*bilinear_spectral"):
        critic.upper_bound(critic.init(KEY, x, y))
    for options, words in (
        ({"kind": "tree"}, "kind: no critic"),
        ({"kind": "concat_bjorck", "width": 3}, "width: must be even"),
        ({"kind": "concat", "depth": 0}, "depth"),
        ({"kind": "bilinear_bjorck", "radius": 0.0}, "radius"),
    ):
        with pytest.raises(UserError, match=words):
            critics.build(**options)


def trained(critic, x, y, steps):
    """Maximise the dual objective and return its value."""
    variables, tx = critic.init(KEY, x, y), optax.adam(1e-2)

    def value(params, stats):
        scores, after = critic.scores(critics.Variables(params, stats), x, y, train=True)
        return -losses.dual_dependency(scores), after

    @jax.jit
    def step(params, stats, opt):
        gradient, after = jax.grad(value, has_aux=True)(params, stats)
        updates, opt = tx.update(gradient, opt)
        return optax.apply_updates(params, updates), after, opt

    params, stats, opt = variables.params, variables.stats, tx.init(variables.params)
    for _ in range(steps):
        params, stats, opt = step(params, stats, opt)
    after = critics.Variables(params, stats)
    return float(losses.dual_dependency(critic.scores(after, x, y, train=False)[0])), after


# spectral normalisation uses only the largest singular value, so the others reduce the gradient;
# one power iteration for each step lags behind a fast optimizer, as the certificate shows
@pytest.mark.parametrize(
    ("kind", "share", "most"), [("concat_bjorck", 0.9, 1 + 1e-5), ("concat_spectral", 0.75, 1.3)]
)
def test_a_trained_critic_approaches_the_exact_dependency_from_below(kind, share, most):
    symbols = jnp.float32([[0.0, 0.0], [1.0, 0.0], [0.0, 1.2]])
    x = jnp.tile(symbols, (4, 1))
    exact = bounds.dependency_exact(np.eye(3) / 3, symbols, symbols)
    actual, variables = trained(critics.build(kind, width=32, depth=2), x, x, 300)
    bound = critics.build(kind, width=32, depth=2).upper_bound(variables)
    assert actual <= exact * bound + 1e-3
    assert actual >= share * exact
    assert bound < most


@pytest.mark.long
def test_the_value_of_a_gaussian_sample_is_below_the_exact_value():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1))
    y = 0.9 * x + np.sqrt(1 - 0.81) * rng.normal(size=(40, 1))
    actual, variables = trained(
        critics.build("concat_bjorck", width=16, depth=2), jnp.float32(x), jnp.float32(y), 300
    )
    exact = bounds.dependency_of_sample(x, y)
    assert 0.7 * exact < actual <= exact + 1e-3
    assert actual <= bounds.gaussian_dependency_bracket(0.9).upper + 0.1  # of 40 pairs
    assert critics.measured_slope(
        critics.build("concat_bjorck", width=16, depth=2), variables, jnp.float32(x), jnp.float32(y)
    ) <= 1 + 1e-4  # fmt: skip
