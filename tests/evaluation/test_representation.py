"""Linear probes against scipy's minimum of the same objective, and the logged estimates."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from kdjax.errors import UserError
from kdjax.evaluation import representation


def drawn(seed=0, n=300, d=6, classes=4, noise=1.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(9).normal(size=(classes, d))
    return centres[labels] + noise * rng.normal(size=(n, d)), labels


def reference(x, labels, classes):
    """Return the minimiser of C sum NLL + |W|^2 / 2 on standardised features, C = .1; float64."""
    ready = (x - x.mean(0)) / x.std(0)
    n, d = ready.shape

    def objective(flat):
        weights, bias = flat[: d * classes].reshape(d, classes), flat[d * classes :]
        z = ready @ weights + bias
        losses = logsumexp(z, axis=1) - z[np.arange(n), labels]
        slope = np.exp(z - logsumexp(z, axis=1, keepdims=True))
        slope[np.arange(n), labels] -= 1
        gradient = np.concatenate([(0.1 * ready.T @ slope + weights).ravel(), 0.1 * slope.sum(0)])
        return 0.1 * losses.sum() + (weights**2).sum() / 2, gradient

    start = np.zeros(d * classes + classes)
    fit = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return fit.x[: d * classes].reshape(d, classes), fit.x[d * classes :]


def test_a_probe_is_the_minimiser():
    x, labels = drawn()
    probe = representation.fit_probe(x.astype(np.float32), labels)
    weights, bias = reference(x, labels, 4)
    # the bias is unique up to a constant
    actual = probe.regression.coef_.T
    np.testing.assert_allclose(actual, weights, atol=5e-3)
    shift = probe.regression.intercept_ - bias
    np.testing.assert_allclose(shift, shift.mean(), atol=5e-3)
    fresh, truth = drawn(seed=1)
    scores = (fresh - x.mean(0)) / x.std(0) @ weights + bias
    expected = np.mean(scores.argmax(1) == truth)
    assert abs(probe.accuracy(fresh, truth) - expected) <= 2 / len(truth)  # rounding ties


def test_feature_scales_do_not_matter():
    x, labels = drawn()
    fresh, truth = drawn(seed=1)
    scale = np.array([1e-3, 1, 10, 1e3, 1, 1])
    one = representation.fit_probe(x, labels).accuracy(fresh, truth)
    other = representation.fit_probe(x * scale + 5, labels).accuracy(fresh * scale + 5, truth)
    assert abs(one - other) <= 2 / len(truth)
    constant = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    more = np.concatenate([fresh, np.ones((len(fresh), 1))], axis=1)
    assert abs(representation.fit_probe(constant, labels).accuracy(more, truth) - one) <= 2 / len(
        truth
    )


def test_members_roles_and_factors():
    x, labels = drawn()
    fresh, truth = drawn(seed=1)
    noise = np.random.default_rng(2).normal(size=x.shape)
    factors = lambda z: np.stack([z, z % 2, np.zeros_like(z)], axis=1)  # noqa: E731
    fitted = representation.fit_probes(
        {"encoder_x": np.stack([x, noise, x * np.nan])}, factors(labels)
    )
    scores = representation.probe_accuracies(
        fitted, {"encoder_x": np.stack([fresh] * 3)}, factors(truth)
    )
    assert set(scores) == {
        "encoder_x/probe_accuracy",
        *(f"encoder_x/probe_accuracy_{i}" for i in range(3)),
    }
    good, blind, lost = scores["encoder_x/probe_accuracy_0"]
    assert good > blind + 0.2
    assert np.isnan(lost)
    assert scores["encoder_x/probe_accuracy_2"][0] == 1  # one value only
    mean = np.mean([scores[f"encoder_x/probe_accuracy_{i}"] for i in range(3)], axis=0)
    np.testing.assert_array_equal(scores["encoder_x/probe_accuracy"], mean)


def test_non_finite_features_are_reported():
    x, labels = drawn()
    with pytest.raises(UserError, match="not finite: the run diverged"):
        representation.fit_probe(x * np.inf, labels)
