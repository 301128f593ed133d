"""Box losses against scipy and a formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import expit, huber

from kdjax import losses
from kdjax.errors import UserError


def draw(seed, shape):
    return np.random.default_rng(seed).normal(size=shape) * 2


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_smooth_l1_is_the_huber_loss_over_beta(beta):
    a, b = draw(0, (6, 4)), draw(1, (6, 4))
    expected = (huber(beta, a - b) / beta).sum(-1)
    actual = losses.smooth_l1(jnp.array(a), jnp.array(b), beta=beta)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    of = lambda x, y: losses.smooth_l1(x, y, beta=beta)  # noqa: E731
    check_grads(of, (jnp.array(a), jnp.array(b)), 1, rtol=1e-2)


def test_beta_zero_is_the_absolute_error():
    a, b = draw(2, (5, 4)), draw(3, (5, 4))
    a[0] = b[0]
    for beta in (0.0, jnp.float32(0)):  # beta is traced in a sweep
        value, gradient = jax.jit(
            jax.value_and_grad(
                lambda x, beta=beta: jnp.sum(losses.smooth_l1(x, jnp.array(b), beta=beta))
            )
        )(jnp.array(a, jnp.float32))
        np.testing.assert_allclose(value, np.abs(a - b).sum(), rtol=1e-5)
        np.testing.assert_allclose(gradient, np.sign(a - b), atol=1e-6)


def test_binary_cross_entropy_against_scipy():
    z, y = draw(4, 8), np.arange(8) % 2
    expected = -np.where(y > 0, np.log(expit(z)), np.log1p(-expit(z)))
    actual = losses.binary_cross_entropy(jnp.array(z), jnp.array(y))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    check_grads(lambda x: losses.binary_cross_entropy(x, y), (jnp.array(z),), 1, rtol=1e-2)


def test_different_shapes_are_errors(without_jaxtyping):
    with pytest.raises(UserError, match="boxes"):
        losses.smooth_l1(jnp.zeros((2, 4)), jnp.zeros((3, 4)))
    with pytest.raises(UserError, match="the same shape"):
        losses.binary_cross_entropy(jnp.zeros(2), jnp.zeros(3, int))
    with pytest.raises(UserError, match="beta"):
        losses.smooth_l1(jnp.zeros((2, 4)), jnp.zeros((2, 4)), beta=-1.0)
