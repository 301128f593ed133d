"""DKD and DIST against golden arrays and plain numpy in float64."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses
from kdjax.distill import terms
from kdjax.errors import UserError
from kdjax.types import Outputs
from tests.losses import references

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "decoupled.npz")
NAMES = sorted(key.removesuffix("/f64/value") for key in GOLDEN if key.endswith("/value"))
DKD = [name for name in NAMES if "/DKD" in name]
DIST = [name for name in NAMES if "/DIST" in name]


def setting(name):
    """Return the arrays of a golden case, and the numbers in its name."""
    case = name.split("/")[0]
    arrays = [jnp.asarray(GOLDEN[f"{case}/in/{k}"]) for k in ("s_logits", "t_logits", "labels")]
    first, second, temperature = re.fullmatch(r".*_[ab]([\d.]+)_[bg](\d+)_T(\d+)", name).groups()
    return arrays, (float(first), float(second), float(temperature))


@functools.cache
def value_and_gradient(name):
    """Return a jitted function of arrays and scalars: T^2 times a loss's mean, its gradient."""

    def loss(z, arrays, scalars):
        return scalars["temperature"] ** 2 * jnp.mean(getattr(losses, name)(z, *arrays, **scalars))

    return jax.jit(jax.value_and_grad(loss))


def close(actual, expected, rtol=1e-5):
    """Compare relative to the largest entry: a float32 rounding of a logit reaches every class."""
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol / 2 * max(1.0, np.abs(expected).max())
    )


def logits(seed=0, shape=(4, 5), scale=2.0):
    rng = np.random.default_rng(seed)
    s, t = (jnp.array(scale * rng.normal(size=shape), jnp.float32) for _ in range(2))
    return s, t, jnp.array(rng.integers(0, shape[-1], shape[:-1]), jnp.int32)


class TestDecoupled:
    @pytest.mark.parametrize("name", DKD)
    def test_golden_values_and_gradients(self, name):
        (s, t, labels), (alpha, beta, temperature) = setting(name)

        scalars = {"alpha": alpha, "beta": beta, "temperature": temperature}
        # At logits of +-50 and T = 1 the reference is NaN in float32 and loses digits in float64,
        # because it masks the label with a large constant.
        loose = name.startswith("extreme50") and temperature == 1
        value, grad = value_and_gradient("decoupled_kl")(s, (t, labels), scalars)
        close(value, GOLDEN[f"{name}/f64/value"], 2e-4 if loose else 1e-5)
        close(grad, GOLDEN[f"{name}/f64/grad_s"], 2e-4 if loose else 1e-5)

    @pytest.mark.parametrize("temperature", [100.0, 1e4])
    def test_high_temperatures_keep_their_digits(self, temperature):
        s, t, labels = logits(3)
        # The reference in float64 is exact to 1e-16, of values near 1e-3 and 1e-7.
        expected = references.decoupled_kl(s, t, labels, temperature=temperature)
        ours = losses.decoupled_kl(s, t, labels, temperature=temperature)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
        assert np.all(np.asarray(losses.decoupled_kl(s, s, labels, temperature=temperature)) >= 0)

    def test_against_numpy_in_both_arguments(self):
        s, t, labels = logits()
        keywords = {"alpha": 0.5, "beta": 3.0, "temperature": 1.5}

        def plain(s, t):
            return references.decoupled_kl(s, t, labels, *keywords.values())

        loss = jax.jit(lambda s, t: losses.decoupled_kl(s, t, labels, **keywords))
        close(loss(s, t), plain(s, t))
        grads = jax.jit(jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=(0, 1)))(s, t)
        for position, grad in enumerate(grads):
            close(grad, references.central(plain, (s, t), position))
        usual = jax.jit(lambda a, b: losses.decoupled_kl(a, b, labels))
        # float32 differences
        check_grads(usual, (s, t), order=1, modes=["fwd", "rev"], atol=0.02, rtol=0.02)

    def test_hinton_kl_is_the_sum_weighted_by_the_teacher(self):
        s, t, labels = logits(1)
        one, other = (
            losses.decoupled_kl(s, t, labels, alpha=a, beta=1.0 - a, temperature=2.0)
            for a in (1.0, 0.0)
        )
        rest = -jnp.expm1(-losses.cross_entropy(t / 2, labels))
        close(one + rest * other, losses.forward_kl(s, t, temperature=2.0))

    @pytest.mark.parametrize("size", [50.0, 1e4])
    def test_finite_and_exact_for_a_certain_label(self, size):
        s, t, label = jnp.array([size, 0.0, 1.0]), jnp.array([size, 1.0, 0.0]), jnp.array(0)
        value, grad = jax.jit(
            jax.value_and_grad(
                lambda z: losses.decoupled_kl(z, t, label, alpha=1.0, beta=2.0, temperature=1.0)
            )
        )(s)
        p = np.exp(1) / (1 + np.exp(1))  # the other two: (1 - p, p) against (p, 1 - p)
        close(value, 2 * (2 * p - 1), 1e-6)
        close(grad, [0.0, 2 * (1 - 2 * p), 2 * (2 * p - 1)], 1e-6)

    def test_two_classes_have_only_the_target_part(self):
        s, t, labels = logits(2, (3, 2))
        rest, grad = jax.jit(
            jax.value_and_grad(lambda z: jnp.sum(losses.decoupled_kl(z, t, labels, alpha=0.0)))
        )(s)
        assert rest == 0
        assert np.all(np.asarray(grad) == 0)
        close(losses.decoupled_kl(s, t, labels), losses.forward_kl(s, t, temperature=4.0))

    def test_a_class_with_zero_probability_in_both_has_no_effect(self):
        s, t, labels = logits(3)
        labels = labels % 4
        value = losses.decoupled_kl(s[:, :4], t[:, :4], labels)
        close(losses.decoupled_kl(*(z.at[:, 4].set(-jnp.inf) for z in (s, t)), labels), value)

    def test_an_invalid_label_gives_nan_and_no_gradient_where_it_is_masked(self):
        s, t, labels = logits(3)[0][:3], logits(4)[0][:3], jnp.array([-1, 10_000, 1])
        out = losses.decoupled_kl(s, t, labels)
        assert np.isnan(out).tolist() == [True, True, False]

        def masked(z):
            return jnp.where(labels == 1, losses.decoupled_kl(z, t, labels), 0).sum()

        def alone(z):
            return losses.decoupled_kl(z, t[2], labels[2])

        grad = jax.jit(jax.grad(masked))(s)
        assert not np.any(grad[:2])
        close(grad[2:], jax.jit(jax.grad(alone))(s[2])[None])

    @pytest.mark.usefixtures("without_jaxtyping")
    def test_errors(self):
        z, labels = jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)
        for name, value in (("alpha", -1.0), ("beta", np.nan), ("temperature", 0.0)):
            with pytest.raises(UserError, match=f"^{name}: must"):
                losses.decoupled_kl(z, z, labels, **{name: value})
        with pytest.raises(UserError, match=r"\(2, 1\) must have at least two classes"):
            losses.decoupled_kl(z[:, :1], z[:, :1], labels)
        with pytest.raises(UserError, match=r"student \(2, 3\) and teacher \(1, 3\)"):
            losses.decoupled_kl(z, z[:1], labels)
        with pytest.raises(UserError, match="labels: dtype float32"):
            losses.decoupled_kl(z, z, jnp.zeros(2))


class TestCorrelation:
    @pytest.mark.parametrize("name", DIST)
    def test_golden_values_and_gradients(self, name):
        (s, t, _), (beta, gamma, temperature) = setting(name)

        scalars = {"beta": beta, "gamma": gamma, "temperature": temperature}
        value, grad = value_and_gradient("correlation")(s, (t,), scalars)
        close(value, GOLDEN[f"{name}/f64/value"])
        close(grad, GOLDEN[f"{name}/f64/grad_s"])

    def test_against_numpy_in_both_arguments(self):
        s, t, _ = logits(4)

        def plain(s, t):
            return references.correlation(s, t, 2.0, 0.5, 1.5)

        @jax.jit
        def loss(s, t):
            return losses.correlation(s, t, beta=2.0, gamma=0.5, temperature=1.5)

        close(loss(s, t), plain(s, t))
        for position, grad in enumerate(jax.jit(jax.grad(loss, argnums=(0, 1)))(s, t)):
            close(grad, references.central(plain, (s, t), position))
        check_grads(
            loss, (s, t), order=1, modes=["fwd", "rev"], atol=0.02, rtol=0.02
        )  # fmt: skip

    def test_a_single_example_has_no_intra_class_part(self):
        s, t, _ = logits(5, (1, 4))
        value, grad = jax.jit(jax.value_and_grad(lambda z: losses.correlation(z, t, beta=0.0)))(s)
        assert value == 1
        assert np.all(np.asarray(grad) == 0)
        assert losses.correlation(s[0], t[0]) == losses.correlation(s, t)

    def test_zero_at_equal_outputs_and_under_affine_changes_of_the_probabilities(self):
        s, _, _ = logits(6)
        p = jax.nn.softmax(s, axis=-1)
        flatter = jnp.log(0.5 * p + 0.1)  # an affine change of the probabilities
        close(losses.correlation(s, s), 0.0)
        close(losses.correlation(flatter, s), 0.0)

    def test_leading_axes_are_one_batch(self):
        s, t, _ = logits(7, (2, 3, 4))
        close(
            losses.correlation(s, t), losses.correlation(s.reshape(6, 4), t.reshape(6, 4)), 1e-6
        )  # fmt: skip

    @pytest.mark.usefixtures("without_jaxtyping")
    def test_errors(self):
        z = jnp.zeros((2, 3))
        for name, value in (("beta", -1.0), ("gamma", np.inf), ("temperature", 0.0)):
            with pytest.raises(UserError, match=f"^{name}: must"):
                losses.correlation(z, z, **{name: value})
        with pytest.raises(UserError, match=r"student \(2, 3\) and teacher \(1, 3\)"):
            losses.correlation(z, z[:1])


def test_correlation_leaves_masked_examples_out():
    rng = np.random.default_rng(3)
    s, t = (rng.normal(size=(9, 5)).astype(np.float32) for _ in range(2))
    mask = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0])
    expected = losses.correlation(s[mask > 0], t[mask > 0], temperature=2.0)
    np.testing.assert_allclose(losses.correlation(s, t, temperature=2.0, mask=mask), expected, 1e-6)
    term = terms.TERM_SPECS["correlation"]()
    outputs, batch = (Outputs(jnp.asarray(z), {}) for z in (s, t)), {"mask": mask}
    student, teacher = outputs
    value = term.loss_fn(student, [teacher], batch, {"temperature": 2.0})
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    junk = np.where(mask[:, None] > 0, s, 100.0)
    gradient = jax.grad(lambda z: losses.correlation(z, t, mask=mask))(jnp.asarray(junk))
    assert np.all(gradient[mask == 0] == 0)
    assert np.all(np.isfinite(gradient))
