"""Relational losses against golden values and plain numpy in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses
from kdjax.errors import UserError
from tests.losses import references
from tests.losses.references import close_features as close

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "feature.npz")
ALL = [
    losses.probabilistic_knowledge_transfer, losses.relational_angle, losses.relational_distance,
    losses.similarity_preserving,
]  # fmt: skip


def features(seed=0, widths=(3, 2)):
    rng = np.random.default_rng(seed)
    return tuple(jnp.array(rng.normal(size=(4, width)), jnp.float32) for width in widths)


def relational(s, t):
    return 25 * losses.relational_distance(s, t) + 50 * losses.relational_angle(s, t)


@pytest.mark.parametrize(("function", "name", "case"), [
    (losses.similarity_preserving, "SP", "feat_b4_c6_h8"),
    (losses.similarity_preserving, "SP", "feat_b2_c4_h1"),
    (losses.probabilistic_knowledge_transfer, "PKT", "emb_b4_d16"),
    (relational, "RKD_25_50", "emb_b4_d16"),
])  # fmt: skip
def test_golden_values_and_gradients(function, name, case):
    s, t = (jnp.asarray(GOLDEN[f"{case}/in/{who}_feat"]) for who in "st")
    value, grad = jax.jit(jax.value_and_grad(function))(s, t)
    close(value, GOLDEN[f"{case}/{name}_repdistiller/f64/value"])
    close(grad, GOLDEN[f"{case}/{name}_repdistiller/f64/grad_s"])


@pytest.mark.parametrize("function", ALL)
def test_values_and_gradients_match_the_definition(function):
    both, plain = features(), getattr(references, function.__name__)
    value, grads = references.gradients(function, *both)
    close(value, plain(*both))
    for position, grad in enumerate(grads):
        close(grad, references.central(plain, references.float64(*both), position))
    check_grads(
        jax.jit(function), both, order=1, modes=["fwd", "rev"], atol=0.02, rtol=0.02
    )  # fmt: skip


@pytest.mark.parametrize("function", ALL)
def test_zero_for_scaled_and_rotated_features_of_any_width(function):
    s, _ = features(1)
    turned = 5 * s @ jnp.linalg.qr(features(2, (4, 4))[0])[0][:3]  # isometric, into 4 numbers
    assert abs(float(references.gradients(function, s, turned)[0])) < 1e-6
    assert max(np.abs(g).max() for g in references.gradients(function, s, s)[1]) < 1e-6


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("case", ["all 0", "all equal", "two equal", "one example", "one 0"])
def test_degenerate_batches_are_finite(function, case):
    s, t = features(3)
    s = {
        "all 0": jnp.zeros_like(s), "all equal": jnp.ones_like(s), "two equal": s.at[1].set(s[0]),
        "one example": s[:1], "one 0": s.at[0].set(0.0),
    }[case]  # fmt: skip
    for pair in ((s, t[: len(s)]), (t[: len(s)], s), (s, s)):
        value, grads = references.gradients(function, *pair)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(g)) for g in grads)


def test_distances_of_close_examples_are_accurate():
    # float32 inner products would lose the distance: 1e3^2 has a rounding of .06
    line = 1e3 + jnp.array([[0.0], [0.25], [1.0]])
    close(losses.relational_distance(line, line - 1e3), 0.0)
    close(losses.relational_angle(line, line - 1e3), 0.0)


def test_neighbours_of_nearly_equal_features_keep_their_digits():
    s, change = features(seed=5, widths=(3, 3))
    t = s + 1e-3 * change
    value, grad = jax.jit(jax.value_and_grad(losses.probabilistic_knowledge_transfer))(s, t)
    exact = references.probabilistic_knowledge_transfer
    np.testing.assert_allclose(value, exact(s, t), rtol=1e-3)
    expected = references.central(exact, (s, np.float64(t)), 0)
    np.testing.assert_allclose(grad, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("function", ALL)
def test_different_batch_sizes_are_errors(function):
    with pytest.raises(UserError, match=r"student \(4, 3\) and teacher \(3, 3\)"):
        function(jnp.zeros((4, 3)), jnp.zeros((3, 3)))
    with pytest.raises(UserError, match=r"must be \[batch"):
        function(jnp.zeros(4), jnp.zeros(4))
