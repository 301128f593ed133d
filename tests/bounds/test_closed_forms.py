"""Closed forms against seeded Monte Carlo, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kdjax import bounds
from kdjax.errors import UserError

WIDTH, SAMPLES, SPREAD = 5, 10, 1.3
MEAN = np.full(WIDTH, 0.3)


@pytest.fixture(scope="module")
def estimates():
    """Return V for 40,000 data sets."""
    rng = np.random.default_rng(0)
    return MEAN + SPREAD / np.sqrt(SAMPLES) * rng.normal(size=(40_000, WIDTH))


def test_mean_estimator_matches_simulation(estimates):
    rng = np.random.default_rng(1)
    labels = rng.choice([-1, 1], size=(20_000, SAMPLES, 1))
    inputs = labels * MEAN + SPREAD * rng.normal(size=(20_000, SAMPLES, WIDTH))
    v = (labels * inputs).mean(1)
    np.testing.assert_allclose(v.mean(0), estimates.mean(0), atol=0.02)
    np.testing.assert_allclose(np.cov(v.T), np.cov(estimates.T), atol=0.01)


@pytest.mark.parametrize("rank", [1, 3])
def test_layer_divergence_and_distance(estimates, rank):
    layer = np.random.default_rng(2).normal(size=(rank, WIDTH))
    gram = SPREAD**2 * layer @ layer.T
    shrink = 1 - 1 / SAMPLES  # variance of a training point given V
    shift = (estimates - MEAN) @ layer.T
    quadratic = np.einsum("ni,ij,nj->n", shift, np.linalg.inv(gram), shift).mean()
    divergence = (rank * shrink - rank + quadratic - rank * np.log(shrink)) / 2
    np.testing.assert_allclose(bounds.gaussian_layer_kl(rank, SAMPLES), divergence, rtol=0.02)
    roots = np.trace(gram) * (1 - np.sqrt(shrink)) ** 2  # the covariances commute
    distance = (shift**2).sum(1).mean() + roots
    np.testing.assert_allclose(
        bounds.gaussian_layer_w2_squared(np.linalg.norm(layer), SPREAD, SAMPLES),
        distance,
        rtol=0.02,
    )


def test_a_data_dependent_projection_retains_more_than_its_rank(estimates):
    along = np.einsum("nd,nd->n", estimates, estimates - MEAN) / np.linalg.norm(estimates, axis=1)
    shrink = 1 - 1 / SAMPLES
    truth = (shrink - 1 - np.log(shrink) + (along**2).mean() / SPREAD**2) / 2
    assert truth > 1.5 * bounds.gaussian_layer_kl(1, SAMPLES)


def test_risks_and_the_bound_of_the_input_layer(estimates):
    rng = np.random.default_rng(3)
    labels = rng.choice([-1, 1], size=(20_000, SAMPLES, 1))
    inputs = labels * MEAN + SPREAD * rng.normal(size=(20_000, SAMPLES, WIDTH))
    v = (labels * inputs).mean(1)
    training = (np.einsum("snd,sd->sn", labels * inputs, v) < 0).mean()
    fresh = MEAN + SPREAD * rng.normal(size=v.shape)
    population = (np.einsum("sd,sd->s", fresh, v) < 0).mean()
    risks = bounds.gaussian_risks(estimates, MEAN, SPREAD, SAMPLES)
    assert np.mean(risks.training) == pytest.approx(training, abs=0.005)
    assert np.mean(risks.population) == pytest.approx(population, abs=0.012)
    gap = np.mean(risks.population - risks.training)
    assert 0.05 < gap <= bounds.gaussian_kl_bound(WIDTH, SAMPLES, sub_gaussian=0.5)


def test_gaussian_kl_is_the_mean_log_ratio():
    rng = np.random.default_rng(4)
    factors = rng.normal(size=(2, 3, 3))
    cov0, cov1 = factors @ factors.transpose(0, 2, 1) + np.eye(3)
    m0, m1 = rng.normal(size=(2, 3))
    first, second = stats.multivariate_normal(m0, cov0), stats.multivariate_normal(m1, cov1)
    draws = first.rvs(100_000, random_state=5)
    estimate = (first.logpdf(draws) - second.logpdf(draws)).mean()
    assert bounds.gaussian_kl(m0, cov0, m1, cov1) == pytest.approx(estimate, rel=0.03)


def test_w2_of_degenerate_gaussians_is_that_of_their_points():
    flat = np.diag([1.0, 0.0])  # semidefinite: allowed on the host
    assert bounds.gaussian_w2_squared([0, 0], flat, [0, 1], flat) == pytest.approx(1.0)
    assert bounds.gaussian_w2_squared([0], [[0]], [3], [[4]]) == pytest.approx(13.0)


def test_gaussian_batches_equal_single_calls():
    rng = np.random.default_rng(6)
    factors = rng.normal(size=(2, 4, 3, 3))
    covs = factors @ factors.swapaxes(-1, -2) + np.eye(3)
    means = rng.normal(size=(2, 4, 3))
    for function in (bounds.gaussian_kl, bounds.gaussian_w2_squared):
        batch = function(means[0], covs[0], means[1], covs[1])
        single = [function(means[0, i], covs[0, i], means[1, i], covs[1, i]) for i in range(4)]
        np.testing.assert_allclose(batch, single, rtol=1e-12)


def slope(function, at, step=1e-6):
    """Return the central difference of a host function, [d]."""
    at = np.asarray(at, float)
    moves = step * np.eye(at.size).reshape(at.size, *at.shape)
    return np.array([function(at + m) - function(at - m) for m in moves]) / (2 * step)


def test_gradients():
    mean, eye = jnp.array([0.3, -0.2]), jnp.eye(2)

    def moved(s):
        # equal eigenvalues: there the gradient of eigenvectors would be NaN
        return bounds.gaussian_w2_squared(s * mean, s * 2 * eye, mean, eye)

    # (1 - s)^2 |m|^2 + 2 (sqrt(2 s) - 1)^2 at s = 1.5
    truth = 2 * 0.5 * 0.13 + 4 * (3**0.5 - 1) / 3**0.5
    assert float(jax.jit(jax.grad(moved))(1.5)) == pytest.approx(truth, rel=1e-4)
    x, y = np.array([0.1, 1.5, 0.7]), np.array([2.0, -1.0])
    np.testing.assert_allclose(
        jax.jit(jax.grad(bounds.wasserstein_1d))(jnp.array(x), jnp.array(y)),
        slope(lambda v: stats.wasserstein_distance(v, y), x),
        atol=1e-5,
    )
    grad = jax.grad(bounds.dropout_contraction)
    assert float(grad(jnp.array(0.4), 3)) == pytest.approx(-3 * 0.4**2, rel=1e-5)
    assert np.isfinite(grad(jnp.array(0.0), 3))
    zero = jax.grad(lambda d: bounds.kl_bound(d, sub_gaussian=0.5))(jnp.zeros(2))
    assert np.isfinite(zero).all()


def test_shapes_of_the_hierarchical_bounds():
    divergences = np.array([[0.02, 0.08], [0.02, 0.02]])
    np.testing.assert_allclose(bounds.kl_bound(divergences, sub_gaussian=0.5), [0.15, 0.1])
    assert bounds.kl_bound(np.inf, sub_gaussian=0.5) == np.inf
    # the mean over samples is taken per layer; a tail below 1 counts as 1
    values = bounds.wasserstein_bound([[1.0, 3.0], [2.0, 4.0]], [2.0, 0.1], loss_lipschitz=0.5)
    np.testing.assert_allclose(values, [2.0, 1.5])


def test_neighbour_estimators_detect_scale_and_independence():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
    truth = bounds.gaussian_kl([0, 0], np.eye(2), [0, 0], 4 * np.eye(2))
    assert bounds.knn_kl(x, 2 * y, k=5) == pytest.approx(truth, abs=0.15)
    assert bounds.knn_kl(3 * x, 6 * y, k=5) == pytest.approx(bounds.knn_kl(x, 2 * y, k=5))
    assert abs(bounds.ksg_mutual_information(x, y, k=3)) < 0.12
    proxy = bounds.kl_bound_proxy(x, 2 * y, k=5, sub_gaussian=0.5)
    assert proxy == pytest.approx(0.5 * np.sqrt(2 * bounds.knn_kl(x, 2 * y, k=5)))


def test_divergence_of_representation_and_class():
    """Two classes of Gaussians: other class shares, and one class shifted."""
    rng = np.random.default_rng(8)
    x_classes, y_classes = np.repeat([0, 1], [600, 200]), np.repeat([1, 0], [400, 400])
    x = rng.normal(size=(800, 1)) + 4.0 * x_classes[:, None]
    y = rng.normal(size=(800, 1)) + 5.0 * y_classes[:, None]
    truth = 0.75 * np.log(0.75 / 0.5) + 0.25 * (np.log(0.25 / 0.5) + 1 / 2)
    actual = bounds.knn_kl_by_class(x, y, x_classes, y_classes, k=5)
    assert actual == pytest.approx(truth, abs=0.1)  # hundreds of samples
    proxy = bounds.kl_bound_proxy(x, y, x_classes, y_classes, k=5, sub_gaussian=0.5)
    assert proxy == pytest.approx(0.5 * np.sqrt(2 * actual))
    with pytest.raises(UserError, match="x_classes, y_classes: give both or none"):
        bounds.kl_bound_proxy(x, y, x_classes, k=5, sub_gaussian=0.5)


def dense_convolution(kernel, shape, stride):
    """The matrix of a convolution with kernel // 2 zeros on each side, from its definition."""
    window, pads = kernel.shape[:2], [k // 2 for k in kernel.shape[:2]]
    counts = [(n + 2 * p - k) // stride + 1 for n, p, k in zip(shape, pads, window, strict=True)]
    columns = []
    for index in np.ndindex(*shape, kernel.shape[2]):
        image = np.zeros((*shape, kernel.shape[2]))
        image[index] = 1
        padded = np.pad(image, [(p, p) for p in pads] + [(0, 0)])
        out = [
            np.tensordot(padded[i * stride :, j * stride :][: window[0], : window[1]], kernel, 3)
            for i, j in np.ndindex(*counts)
        ]
        columns.append(np.ravel(out))
    return np.stack(columns, 1)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [(2, 2), (4, 4), (2, 3), (3, 3), (6, 1)])
@pytest.mark.parametrize("shape", [(5, 4), (7, 7), (1, 3)])
def test_norms_of_convolutions_of_even_kernels(window, shape, stride):
    kernel = np.random.default_rng(sum(window)).normal(size=(*window, 2, 3))
    truth = np.linalg.norm(dense_convolution(kernel, shape, stride), 2)
    exact = bounds.convolution_norm_exact(kernel, shape, stride=stride)
    assert exact == pytest.approx(truth, rel=1e-12)
    assert bounds.convolution_bound(kernel, shape, stride=stride) >= truth * (1 - 1e-12)
