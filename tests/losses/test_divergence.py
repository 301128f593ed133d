"""Divergences against scipy in float64, and their identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from scipy import special

from kdjax import losses
from tests.losses.references import close, gradients

PAIRS = [losses.forward_kl, losses.reverse_kl, losses.jensen_shannon, losses.total_variation]
PAIRS += [losses.weighted_kl, losses.balanced_kl]


def pair(seed=0, shape=(6, 5), scale=2.0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.array(scale * rng.normal(size=shape), jnp.float32) for _ in range(2))


def softmax(z, temperature=1.0):
    return special.softmax(np.asarray(z, np.float64) / temperature, axis=-1)


def scipy_kl(p, q):
    return special.rel_entr(p, q).sum(-1)


class TestCrossEntropy:
    def test_label_smoothing_against_scipy(self):
        z, _ = pair()
        labels = jnp.array([0, 1, 2, 3, 4, 0])
        log_p = special.log_softmax(np.asarray(z, np.float64), axis=-1)
        for e in (0.0, 0.1, 0.9):
            target = (1 - e) * np.eye(5)[np.asarray(labels)] + e / 5
            actual = losses.cross_entropy(z, labels, label_smoothing=e)
            close(actual, -(target * log_p).sum(-1))
            check_grads(
                jax.jit(lambda a, e=e: losses.cross_entropy(a, labels, label_smoothing=e)),
                (z,), order=2, modes=["rev"], atol=0.02, rtol=0.02,  # float32 differences
            )  # fmt: skip

    def test_the_teachers_class_in_place_of_a_label(self):
        s, t = pair(4)
        log_p = special.log_softmax(np.asarray(s, np.float64), axis=-1)
        right = -np.take_along_axis(log_p, np.asarray(t).argmax(-1)[..., None], -1)[..., 0]
        close(losses.hard_cross_entropy(s, t), right)
        smoothed = losses.hard_cross_entropy(s, t, label_smoothing=0.2)
        close(smoothed, 0.8 * right - 0.2 * log_p.mean(-1))
        of_teacher = jax.grad(lambda a: losses.hard_cross_entropy(s, a).sum())(t)
        assert not np.any(of_teacher)

    def test_an_invalid_label_gives_nan(self):
        out = losses.cross_entropy(jnp.zeros((3, 4)), jnp.array([-1, 4, 3]))
        assert np.isnan(out).tolist() == [True, True, False]


class TestDirection:
    def test_forward_kl_is_teacher_student_and_reverse_kl_student_teacher(self):
        (s, t), (p, q) = pair(1), (softmax(a, 2.0) for a in pair(1))
        close(losses.forward_kl(s, t, temperature=2.0), scipy_kl(q, p))
        close(losses.reverse_kl(s, t, temperature=2.0), scipy_kl(p, q))

    def test_jensen_shannon_against_scipy_and_its_weight_is_the_teacher_s(self):
        (s, t), (p, q) = pair(2), (softmax(a) for a in pair(2))
        for w in (0.1, 0.5, 0.8):
            m = w * q + (1 - w) * p
            expected = w * scipy_kl(q, m) + (1 - w) * scipy_kl(p, m)
            close(losses.jensen_shannon(s, t, weight=w), expected)

    def test_jensen_shannon_tends_to_zero_like_a_kl_at_both_weights(self):
        (s, t), (p, q) = pair(3), (softmax(a) for a in pair(3))
        w = 1e-4
        start, end = (losses.jensen_shannon(s, t, weight=x) for x in (w, 1 - w))
        assert float(start.max()) < 5e-3
        assert float(end.max()) < 5e-3
        np.testing.assert_allclose(start / w, scipy_kl(q, p), rtol=0.03)  # the limit, w -> 0
        np.testing.assert_allclose(end / w, scipy_kl(p, q), rtol=0.03)

    def test_emphasis_depends_on_the_sign_of_the_entropy_gap(self):
        sure, unsure = jnp.array([[3.0, 0.0, 0.0]]), jnp.array([[0.5, 0.0, 0.0]])
        for s, t, emphasised in (
            (sure, unsure, losses.forward_kl),
            (unsure, sure, losses.reverse_kl),
        ):
            extra = losses.balanced_kl(s, t, emphasis=5.0) - losses.weighted_kl(s, t)
            close(extra, 4.0 * emphasised(s, t))

    def test_equal_entropies_have_no_emphasis(self):
        s, t = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]])  # different, with equal entropy
        close(losses.balanced_kl(s, t, emphasis=5.0), losses.weighted_kl(s, t), rtol=1e-6)

    def test_weighted_kl_covers_the_ablations(self):
        s, t = pair(4)
        for (d, v), expected in {
            (1.0, 0.0): losses.forward_kl(s, t),
            (0.0, 1.0): losses.reverse_kl(s, t),
        }.items():
            close(losses.weighted_kl(s, t, forward_weight=d, reverse_weight=v), expected)


class TestIdentities:
    @pytest.mark.parametrize("function", PAIRS)
    def test_zero_with_zero_gradient_at_equal_outputs(self, function):
        s, _ = pair(5)
        value, grads = gradients(function, s, s)
        assert np.all(np.asarray(value) == 0)
        assert max(np.abs(g).max() for g in grads) < 1e-6

    @pytest.mark.parametrize("function", PAIRS)
    def test_gradients_in_both_arguments(self, function):
        check_grads(
            jax.jit(lambda a, b: function(a, b, temperature=1.5)), pair(6), order=1,
            modes=["fwd", "rev"], atol=0.02, rtol=0.02,  # float32 differences
        )  # fmt: skip

    def test_jensen_shannon_gradient_with_tied_classes(self):
        # log p_t - log p_s is exactly 0 on class 2: a subgradient would be wrong.
        s, t = jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.log(jnp.array([0.25, 0.5, 0.25]))
        grad = jax.jit(jax.grad(lambda a: losses.jensen_shannon(a, t, weight=0.3)))(s)
        p, q = softmax(s), softmax(t)
        ratio = np.log(p / (0.3 * q + 0.7 * p))
        close(grad, 0.7 * p * (ratio - (p * ratio).sum()))

    def test_gradients_times_t_squared_are_nearly_independent_of_t(self):
        s, t = pair(7)
        for function in (losses.forward_kl, losses.reverse_kl, losses.balanced_kl):
            norms = [
                temperature**2
                * float(jnp.linalg.norm(gradients(function, s, t, temperature=temperature)[1][0]))
                for temperature in (5.0, 10.0, 20.0)
            ]  # fmt: skip
            assert max(norms) < 1.2 * min(norms), (function.__name__, norms)

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(hnp.arrays(np.float32, (2, 4, 3), elements=st.floats(-60, 60, width=32)))
    def test_bounds_symmetry_and_shift(self, z):
        out = _all(jnp.array(z[0]), jnp.array(z[1]))
        for name, low, high in (
            ("forward_kl", 0, np.inf), ("reverse_kl", 0, np.inf), ("jensen_shannon", 0, np.log(2)),
            ("total_variation", 0, 1), ("entropy", 0, np.log(3)),
        ):  # fmt: skip
            assert np.all(out[name] >= low - 1e-5), name
            assert np.all(out[name] <= high + 1e-5), name
        assert np.all(
            out["total_variation"] <= np.sqrt(np.maximum(out["forward_kl"], 0) / 2) + 1e-3
        )
        swapped = _all(jnp.array(z[1]), jnp.array(z[0]))
        for name in ("jensen_shannon", "total_variation"):
            np.testing.assert_allclose(out[name], swapped[name], atol=1e-6)
        np.testing.assert_allclose(out["forward_kl"], swapped["reverse_kl"], atol=1e-6)
        moved = _all(jnp.array(z[0]) + 30.0, jnp.array(z[1]) - 20.0)
        for name, value in out.items():
            np.testing.assert_allclose(moved[name], value, rtol=1e-4, atol=1e-4)  # rounded logits

    @pytest.mark.parametrize("function", PAIRS)
    def test_a_class_with_zero_probability_in_both_has_no_effect(self, function):
        s, t = pair(8)
        without = gradients(function, s[:, :-1], t[:, :-1])
        with_it = gradients(function, s.at[:, -1].set(-jnp.inf), t.at[:, -1].set(-jnp.inf))
        close(with_it[0], without[0])
        for a, b in zip(with_it[1], without[1], strict=True):
            close(a[:, :-1], b)
            assert np.all(np.asarray(a[:, -1]) == 0)


def extended(s, t, temperature):
    """Values and student gradients in extended precision: KL, reverse, JS, total variation."""
    a, b = (np.asarray(z, np.longdouble) / np.longdouble(temperature) for z in (s, t))
    p, q = (np.exp(z - np.log(np.exp(z).sum(-1, keepdims=True))) for z in (a, b))

    def divergence(x, y):
        return (x * np.log(x / y)).sum(-1)

    def centred(x):
        return p * (x - (p * x).sum(-1, keepdims=True)) / temperature

    m = (p + q) / 2
    return {
        losses.forward_kl: (divergence(q, p), (p - q) / temperature),
        losses.reverse_kl: (divergence(p, q), centred(np.log(p / q))),
        losses.weighted_kl: (
            divergence(q, p) + divergence(p, q),
            (p - q) / temperature + centred(np.log(p / q)),
        ),
        losses.jensen_shannon: (
            (divergence(p, m) + divergence(q, m)) / 2,
            centred(np.log(p / m)) / 2,
        ),
        losses.total_variation: (np.abs(p - q).sum(-1) / 2, centred(np.sign(p - q)) / 2),
    }


@functools.partial(jax.jit, static_argnums=0)
def _values_and_gradient(function, s, t, temperature):
    def total(a):
        each = function(a, t, temperature=temperature)
        return jnp.sum(each), each

    grad, each = jax.grad(total, has_aux=True)(s)
    return each, grad


def values_and_gradient(*args):
    return [np.asarray(x, np.float64) for x in _values_and_gradient(*args)]


class TestDigits:
    """float32 values of size T^-2 or less, against extended precision."""

    @pytest.mark.parametrize("near", [False, True])
    @pytest.mark.parametrize("temperature", [1.0, 100.0, 1e4])
    def test_high_temperatures_and_nearly_equal_logits(self, temperature, near):
        s, t = pair(11)
        t = s + (1e-4 if temperature == 1 else 1e-2) * t if near else t
        for function, (value, grad) in extended(s, t, temperature).items():
            each, ours = values_and_gradient(function, s, t, temperature)
            expected = value.astype(float)
            np.testing.assert_allclose(each, expected, rtol=1e-5, err_msg=function.__name__)
            assert each.min() > 0
            np.testing.assert_allclose(
                ours, grad.astype(float), rtol=1e-4,
                atol=1e-5 * float(np.abs(grad).max()), err_msg=function.__name__,
            )  # fmt: skip

    @pytest.mark.parametrize("scales", [(1, 1e4), (1, 1e8), (1e4, 1e20), (1e30, 100), (1e30, 1e30)])
    def test_sides_of_very_different_size(self, scales):
        """As in a run that diverges: neither side is rounded away, and nothing overflows."""
        rng = np.random.default_rng(17)
        s, t = (jnp.array(scale * rng.normal(size=(200, 5)), jnp.float32) for scale in scales)
        log_p, log_q = (special.log_softmax(np.asarray(z, np.float64), -1) for z in (s, t))
        p, q = np.exp(log_p), np.exp(log_q)
        skewed = np.logaddexp(log_q + np.log(0.1), log_p + np.log(0.9))
        for function, expected in (
            (losses.forward_kl, (q * (log_q - log_p)).sum(-1)),
            (losses.reverse_kl, (p * (log_p - log_q)).sum(-1)),
            (losses.total_variation, np.abs(p - q).sum(-1) / 2),
            (losses.skew_forward_kl, (q * (log_q - skewed)).sum(-1)),
            (lambda *a, **_: losses.skew_reverse_kl(*a[::-1]), (q * (log_q - skewed)).sum(-1)),
        ):
            each, grad = values_and_gradient(function, s, t, 1.0)
            np.testing.assert_allclose(each, expected, rtol=1e-3, atol=1e-6)
            assert np.isfinite(grad).all()

    def test_skewed_kl_of_nearly_equal_logits(self):
        s, t = pair(11)
        t = s + 1e-4 * t
        a, b = (np.asarray(z, np.longdouble) for z in (s, t))
        p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (a, b))
        m = (q + 9 * p) / 10
        each, grad = values_and_gradient(losses.skew_forward_kl, s, t, 1.0)
        np.testing.assert_allclose(each, (q * np.log(q / m)).sum(-1).astype(float), rtol=1e-4)
        ours = 0.9 * (p * ((q / m) * -1 - (p * -(q / m)).sum(-1, keepdims=True)))
        np.testing.assert_allclose(
            grad, ours.astype(float), rtol=1e-3, atol=1e-5 * float(np.abs(ours).max())
        )

    def test_total_variation_is_flat_where_both_agree(self):
        s = jnp.round(8 * pair(13)[0]) / 8  # so that s + 3 is exact
        for a, b in ((s, s), (s, s + 3.0)):
            grads = jax.jit(jax.grad(lambda *z: jnp.sum(losses.total_variation(*z)), (0, 1)))(a, b)
            assert max(np.abs(g).max() for g in grads) == 0
        # the third class ties: only the other two have a slope
        s, t = jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.log(jnp.array([0.25, 0.5, 0.25]))
        sign, p = np.array([1.0, -1.0, 0.0]), softmax(s)
        close(jax.jit(jax.grad(losses.total_variation))(s, t), 0.5 * p * (sign - (p * sign).sum()))

    def test_second_derivatives(self):
        s, t = pair(14, shape=(3,), scale=0.1)
        hessian = jax.jit(jax.hessian(losses.forward_kl))(s, t)
        close(hessian, np.diag(softmax(s)) - np.outer(softmax(s), softmax(s)))


@jax.jit
def _all(s, t):
    out = {f.__name__: f(s, t) for f in PAIRS[:4]}
    return out | {"entropy": losses.entropy(s)}


@pytest.mark.usefixtures("without_jaxtyping")
class TestErrors:
    @pytest.mark.parametrize("function", PAIRS)
    def test_shapes_that_would_broadcast_are_errors(self, function):
        with pytest.raises(ValueError, match=r"\(4, 3\).*\(1, 3\)"):
            function(jnp.zeros((4, 3)), jnp.zeros((1, 3)))

    @pytest.mark.parametrize(("name", "value", "function"), [
        *(("temperature", bad, f) for f in PAIRS for bad in (0, -1.0, np.nan, np.inf)),
        *(("weight", bad, losses.jensen_shannon) for bad in (0, 1.0, -0.1, np.float32(2))),
        *((name, 0.0, losses.balanced_kl) for name in ("emphasis", "entropy_temperature")),
        *((f"{x}_weight", -1.0, losses.weighted_kl) for x in ("forward", "reverse")),
    ])  # fmt: skip
    def test_errors_name_a_scalar_out_of_range(self, name, value, function):
        with pytest.raises(ValueError, match=f"^{name}: must"):
            function(jnp.zeros((2, 3)), jnp.zeros((2, 3)), **{name: value})

    def test_labels_of_one_byte(self):
        z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1000)), jnp.float32)
        labels = np.array([3, 44, 127])
        np.testing.assert_array_equal(
            losses.cross_entropy(z, labels.astype(np.int8)), losses.cross_entropy(z, labels)
        )

    def test_invalid_labels_are_errors(self):
        z = jnp.zeros((2, 3))
        with pytest.raises(ValueError, match=r"labels: shape \(3,\).*\(2, 3\)"):
            losses.cross_entropy(z, jnp.zeros(3, jnp.int32))
        with pytest.raises(ValueError, match="labels: dtype float32 must be an integer"):
            losses.cross_entropy(z, jnp.zeros(2))
        with pytest.raises(ValueError, match=r"label_smoothing: must lie in \[0, 1\)"):
            losses.cross_entropy(z, jnp.zeros(2, jnp.int32), label_smoothing=1.0)

    def test_traced_scalars_are_not_checked(self):
        s, t = pair(9)
        out = jax.vmap(lambda w: losses.jensen_shannon(s, t, weight=w))(jnp.array([0.2, 0.5]))
        close(out[1], losses.jensen_shannon(s, t))
        jax.jit(lambda x: losses.balanced_kl(s, t, temperature=x, emphasis=x))(-1.0)
