"""Feature losses against other people's numbers."""

import pathlib

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from kdjax import losses
from kdjax.types import UserError

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "feature.npz")


@pytest.mark.parametrize("case", ["feat_b4_c6_h8", "feat_b2_c4_h1"])
def test_mse_and_its_gradient_are_the_golden_ones(case):
    s, t = (jnp.asarray(GOLDEN[f"{case}/in/{who}_feat"]) for who in "st")
    loss = lambda s: jnp.mean(losses.feature_mse(s, t))  # noqa: E731
    value, grad = jax.value_and_grad(loss)(s)
    np.testing.assert_allclose(value, GOLDEN[f"{case}/value"], rtol=1e-6)
    np.testing.assert_allclose(grad, GOLDEN[f"{case}/grad_s"], rtol=1e-5, atol=1e-9)


def test_gradients_in_both_arguments():
    rng = np.random.default_rng(0)
    s, t = (jnp.array(rng.normal(size=(3, 2, 2)), jnp.float32) for _ in range(2))
    jax.test_util.check_grads(losses.feature_mse, (s, t), order=1, modes=["rev"], rtol=1e-2)


def test_shapes_that_differ_are_named():
    with pytest.raises(UserError, match=r"student \(2, 3\) and teacher \(2, 4\)"):
        losses.feature_mse(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
