"""Inequalities that hold on every instance: estimators, contraction, Lipschitz constants."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.spatial.distance import cdist

from kdjax import bounds

SEEDS = st.integers(0, 2**32 - 1)
many = settings(max_examples=40, deadline=None, derandomize=True)


def relative_entropy(p, q):
    return float(stats.entropy(np.ravel(p), np.ravel(q)))


@many
@given(seed=SEEDS, n=st.integers(1, 5), width=st.integers(1, 3))
def test_exact_transport_is_the_best_permutation(seed, n, width):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n, width))
    best = min(
        np.linalg.norm(x - y[list(order)], axis=1).mean()
        for order in itertools.permutations(range(n))
    )
    assert bounds.wasserstein_exact(x, y) == pytest.approx(best, rel=1e-12)


@many
@given(seed=SEEDS, n=st.integers(2, 9), m=st.integers(2, 9))
def test_lower_bounds_are_below_the_exact_value(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + rng.normal(size=3)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    directions = rng.normal(size=(3, 4))
    directions /= np.linalg.norm(directions, axis=0)
    exact = bounds.wasserstein_exact(x, y)
    assert bounds.sliced_wasserstein(x, y, directions) <= exact + 1e-12
    anchor = rng.normal(size=3)  # the distance to a point is 1-Lipschitz
    scores = [np.linalg.norm(z - anchor, axis=1) for z in (x, y)]
    assert bounds.kantorovich_value(*scores) <= exact + 1e-12
    first = bounds.wasserstein_1d(x[:, 0], y[:, 0], a, b)
    assert first == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0], a, b), abs=1e-12)
    assert first <= bounds.wasserstein_exact(x, y, a, b) + 1e-9
    assert first == pytest.approx(bounds.wasserstein_exact(x[:, 0], y[:, 0], a, b), abs=1e-9)


@pytest.mark.parametrize("iterations", [1, 2_000])
def test_entropic_value_is_above_the_exact_value(iterations):
    rng = np.random.default_rng(5)
    for _ in range(5):  # one shape, one compilation
        x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
        a, b = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(5))
        upper = bounds.wasserstein_entropic(x, y, a, b, epsilon=0.1, max_iterations=iterations)
        exact = bounds.wasserstein_exact(x, y, a, b)
        assert exact - 1e-12 <= upper.value
        assert upper.value <= exact + 0.2 or not upper.converged


def test_baseline_detects_different_distributions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    same = bounds.baseline(x, y, bounds.wasserstein_exact, seed=1)
    assert same == pytest.approx(bounds.wasserstein_exact(x, y), rel=0.15)
    assert bounds.wasserstein_exact(x, y + 3) > 2 * same


@many
@given(seed=SEEDS, n=st.integers(1, 6), m=st.integers(1, 6), depth=st.integers(1, 3))
def test_loss_gap_is_below_the_wasserstein_bound_of_every_layer(seed, n, m, depth):
    rng = np.random.default_rng(seed)
    widths = [2, *rng.integers(1, 4, depth - 1), 1]
    weights = [rng.normal(size=(b, a)) for a, b in itertools.pairwise(widths)]
    samples = [(rng.normal(size=(k, 2)), rng.normal(size=k)) for k in (n, m)]
    layers = [[x] for x, _ in samples]
    for number, weight in enumerate(weights, start=1):
        for side in layers:
            after = side[-1] @ weight.T
            side.append(after if number == depth else np.maximum(after, 0))
    losses = [np.abs(s[-1][:, 0] - y).mean() for s, (_, y) in zip(layers, samples, strict=True)]
    gap = abs(losses[1] - losses[0])
    labels = [y for _, y in samples]
    distances = [
        bounds.transport_exact(bounds.labelled_cost(*pair, *labels))
        for pair in zip(*layers, strict=True)
    ]
    norms = [np.linalg.norm(w, 2) for w in weights]
    tight = [bounds.activation_pattern_bound(weights[at:]) for at in range(depth)] + [1.0]
    for tails in (bounds.lipschitz_tails(norms), tight):
        values = bounds.wasserstein_bound(distances, tails, loss_lipschitz=1.0)
        assert (gap <= values + 1e-9).all()
        assert values[bounds.funnel_layer(values)] == values.min()


@many
@given(seed=SEEDS, width=st.integers(1, 3), q=st.floats(0.0, 1.0))
def test_dropout_contracts_by_its_coefficient(seed, width, q):
    rng = np.random.default_rng(seed)
    states = list(itertools.product((-1, 1), repeat=width))
    outputs = list(itertools.product((-1, 0, 1), repeat=width))
    channel = np.array([
        [math.prod(q if o == 0 else (1 - q) * (o == s) for s, o in zip(x, y, strict=True))
         for y in outputs]
        for x in states
    ])  # fmt: skip
    eta = bounds.dropout_contraction(q, width)
    p, r = rng.dirichlet(np.ones(len(states)), size=2)
    assert relative_entropy(p @ channel, r @ channel) <= eta * relative_entropy(p, r) + 1e-12
    ends = np.array([[0.2, 0.8], [0.7, 0.3]])  # attained by mass on all -1 and all +1
    before, after = relative_entropy(*ends), relative_entropy(*(ends @ channel[[0, -1]]))
    assert after == pytest.approx(eta * before, rel=1e-9, abs=1e-12)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    p=st.floats(0.01, 0.99), r=st.floats(0.01, 0.99), diameter=st.floats(0.1, 4),
    sigma=st.floats(0.3, 2),
)  # fmt: skip
def test_gaussian_noise_contracts_by_its_coefficient(p, r, diameter, sigma):
    def density(t, weight):
        pair = stats.norm.pdf(t - np.array([0, diameter]), scale=sigma)
        return weight * pair[0] + (1 - weight) * pair[1]

    def integrand(t):
        first = density(t, p)
        return first * math.log(first / density(t, r))

    after = integrate.quad(integrand, -6 * sigma, diameter + 6 * sigma, limit=200)[0]
    before = relative_entropy([p, 1 - p], [r, 1 - r])
    eta = bounds.gaussian_noise_contraction(diameter, sigma)
    assert after <= eta * before + 1e-7  # the mass beyond six deviations


@many
@given(seed=SEEDS, size=st.integers(1, 8))
def test_values_of_critics(seed, size):
    rng = np.random.default_rng(seed)
    joint, product = rng.normal(size=(2, size)) * 3
    dv = bounds.donsker_varadhan(joint, product)
    assert bounds.nguyen_wainwright_jordan(joint, product) <= dv + 1e-9
    assert bounds.info_nce(rng.normal(size=(size, size)) * 5) <= math.log(size) + 1e-12


def test_the_optimal_critic_attains_the_divergence():
    # f = ln p/q on two Gaussians of unit variance: KL = shift^2 / 2
    shift = 0.5
    rng = np.random.default_rng(0)
    p, q = rng.normal(shift, size=200_000), rng.normal(size=200_000)
    f = lambda x: shift * x - shift**2 / 2  # noqa: E731
    for value in (
        bounds.donsker_varadhan(f(p), f(q)),
        bounds.nguyen_wainwright_jordan(f(p) + 1, f(q) + 1),
    ):
        assert value == pytest.approx(shift**2 / 2, abs=0.005)  # 3 / sqrt(200,000) x 0.7


@many
@given(seed=SEEDS)
def test_bounds_of_relu_networks_are_ordered(seed):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=s) for s in ((4, 3), (3, 4), (2, 3))]
    pattern = bounds.activation_pattern_bound(weights)
    absolute = bounds.absolute_product_bound(weights)
    product = bounds.product_bound([np.linalg.norm(w, 2) for w in weights])
    assert pattern <= absolute + 1e-9
    assert absolute <= product + 1e-9
    x = rng.normal(size=(30, 3))
    out = np.maximum(np.maximum(x @ weights[0].T, 0) @ weights[1].T, 0) @ weights[2].T
    steepest = np.max(cdist(out, out)[np.triu_indices(30, 1)] / cdist(x, x)[np.triu_indices(30, 1)])
    assert steepest <= pattern + 1e-9


def test_operator_norm_of_a_convolution():
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))

    def convolve(x):
        out = jax.lax.conv_general_dilated(
            x[None], kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return out[0] + 7.0  # a bias changes nothing

    point = jnp.zeros((5, 5, 2))
    exact = bounds.operator_norm_exact(convolve, point)
    # the matrix of the operator, column by column
    columns = jax.jit(jax.vmap(convolve))(jnp.eye(50).reshape(50, 5, 5, 2)) - 7.0
    reference = np.linalg.svd(np.reshape(columns, (50, -1)).astype(float), compute_uv=False)[0]
    assert exact == pytest.approx(reference, rel=1e-5)
    actual = bounds.operator_norm(convolve, point, key=jax.random.key(0))
    assert exact * 0.99 <= float(actual.lower) <= exact * (1 + 1e-5)
    assert exact <= float(actual.upper) <= exact * 1.15


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_upper_value_is_a_bound_for_a_point_of_half_precision(dtype):
    weights = 6.125 * jnp.eye(16)
    actual = bounds.operator_norm(
        lambda x: weights.astype(x.dtype) @ x, jnp.zeros(16, dtype), key=jax.random.key(0)
    )
    assert actual.lower == pytest.approx(6.125, rel=1e-5)
    assert actual.upper >= 6.125 * (1 - 1e-5)


def test_operator_norm_of_zero_is_zero():
    actual = bounds.operator_norm(lambda x: 0 * x, jnp.ones(3), key=jax.random.key(0))
    assert float(actual.lower) == 0
    assert float(actual.upper) == 0


def test_tails_are_products_of_later_constants():
    np.testing.assert_allclose(bounds.lipschitz_tails([2.0, 3.0, 5.0]), [30, 15, 5, 1])
    np.testing.assert_allclose(bounds.lipschitz_tails(np.zeros(0)), [1])
