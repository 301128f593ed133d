"""Exact enumeration against loops, and every inequality on random learners."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from kdjax import bounds


def random_experiment(rng, size, temperature, states=(2, 3, 2), labels=2, choices=(2, 2)):
    def law(*shape):
        raw = rng.gamma(0.4, size=shape)  # many small probabilities
        raw += 1e-12
        return raw / raw.sum(-1, keepdims=True)

    pairs = zip(choices, itertools.pairwise(states), strict=True)
    channels = [law(k, a, b) for k, (a, b) in pairs]
    first = law(states[0] * labels).reshape(states[0], labels)
    return bounds.Experiment(
        first, channels, rng.uniform(size=(states[-1], labels)), size, temperature
    )


def by_loops(experiment, index):
    """Return gen, I(D;W), I(Y_i;W) and D_l of example `index` by loops over every outcome."""
    law, channels, loss, n, a = experiment
    examples = list(itertools.product(range(law.shape[0]), range(law.shape[1])))
    weights = list(itertools.product(*(range(c.shape[0]) for c in channels)))

    def through(w, layer):
        return np.linalg.multi_dot([np.eye(law.shape[0])] * 2 + [
            channel[choice] for choice, channel in zip(w[:layer], channels, strict=False)
        ])  # fmt: skip

    risk = {w: through(w, len(channels)) @ loss for w in weights}
    joint, gap = {}, 0.0
    for data in itertools.product(examples, repeat=n):
        chance = math.prod(law[z] for z in data)
        mean = np.array([sum(risk[w][z] for z in data) / n for w in weights])
        if math.isinf(a):
            posterior = np.isclose(mean, mean.min(), rtol=0, atol=1e-12).astype(float)
        else:
            posterior = np.exp(-a * mean)
        for w, p, training in zip(weights, posterior / posterior.sum(), mean, strict=True):
            joint[data, w] = chance * p
            gap += chance * p * ((risk[w] * law).sum() - training)
    of_w = {w: sum(p for (_, v), p in joint.items() if v == w) for w in weights}
    of_data = {d: math.prod(law[z] for z in d) for d, _ in joint}
    information = entropy(
        list(joint.values()), [of_data[d] * of_w[w] for d, w in joint]
    )  # scipy's relative entropy

    def divergence(layer):
        trained, fresh = [], []
        for w in weights:
            seen = np.zeros_like(law)
            for (data, v), p in joint.items():
                if v == w:
                    seen[data[index]] += p
            trained.append(through(w, layer).T @ seen)
            fresh.append(through(w, layer).T @ law * of_w[w])
        return entropy(np.ravel(trained), np.ravel(fresh)), np.array(trained).sum(1)

    layers = [divergence(layer)[0] for layer in range(len(channels) + 1)]
    labels = divergence(0)[1]
    product = np.outer(list(of_w.values()), law.sum(0))
    return gap, information, entropy(labels.ravel(), product.ravel()), layers


@pytest.mark.parametrize("temperature", [3.0, math.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_enumeration_equals_loops(temperature, index):
    experiment = random_experiment(np.random.default_rng(3), 2, temperature)
    results = bounds.enumerate_learner(experiment)
    gap, information, label, layers = by_loops(experiment, index)
    np.testing.assert_allclose(results.generalization, gap, atol=1e-12)
    np.testing.assert_allclose(results.information, information, atol=1e-12)
    np.testing.assert_allclose(results.label_information, label, atol=1e-12)
    np.testing.assert_allclose(results.divergences, layers, atol=1e-12)


def broken(rows):
    return [(row.name, row.value, row.at_least) for row in rows if not row.holds]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 3),
    temperature=st.one_of(st.floats(0.01, 100), st.just(math.inf)),
)
def test_every_inequality_on_random_learners(seed, size, temperature):
    rows = bounds.chain(random_experiment(np.random.default_rng(seed), size, temperature))
    assert not broken(rows)
    assert ("Gibbs identity" in {row.name for row in rows}) == math.isfinite(temperature)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    widths=st.sampled_from([[1, 1], [2, 1], [1, 2, 1], [2, 2, 1], [2, 1, 2, 1]]),
    size=st.integers(1, 2),
    drop=st.floats(0, 1),
    noise=st.floats(0, 1),
    temperature=st.one_of(st.floats(0.01, 50), st.just(math.inf)),
)
def test_every_inequality_on_sign_networks(widths, size, drop, noise, temperature):
    experiment = bounds.sign_network(
        widths, size=size, inverse_temperature=temperature, drop=drop, label_noise=noise
    )
    assert not broken(bounds.chain(experiment))
    results = bounds.enumerate_learner(experiment)
    for width, eta in zip(widths[1:-1], results.coefficients, strict=False):
        # Dobrushin's coefficient of dropout is the closed form, if two hidden states differ in all
        assert eta <= bounds.dropout_contraction(drop, width) + 1e-12


@pytest.mark.parametrize("noise", [6e-219, 1e-160, 5e-324])
def test_products_of_probabilities_that_underflow(noise):
    options = {"size": 1, "inverse_temperature": math.inf, "drop": 0.0}
    rows, exact = (
        bounds.chain(bounds.sign_network([1, 1], label_noise=value, **options))
        for value in (noise, 0.0)
    )
    assert not broken(rows)
    np.testing.assert_allclose([r.value for r in rows], [r.value for r in exact], atol=1e-12)


def test_a_wrong_value_is_detected():
    good = bounds.sign_network([2, 1], size=2, inverse_temperature=4.0)
    values = {row.name: row.value for row in bounds.chain(good)}
    assert values["|gen|"] > 0.01
    assert values["KL bound 1"] < values["KL bound 0"] - 0.001
    assert values["KL bound 0"] < values["information bound"] - 0.001


def test_deeper_layers_of_a_noisy_network_have_less_information():
    rows = bounds.enumerate_learner(
        bounds.sign_network([2, 2, 2, 1], size=2, inverse_temperature=5.0, drop=0.5)
    )
    assert (np.diff(rows.divergences) < 0).all()
