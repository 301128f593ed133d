"""KDCL's targets and SwitOKD's switch against golden arrays and plain numpy in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

from kdjax import losses

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "divergence.npz")
CASES = ["b5_c2", "b8_c10", "equal_b8_c100", "extreme50_b8_c10", "b16_c100"]
KDCL = [losses.minimum_logit_kl, losses.least_cross_entropy_kl]


def networks(seed=0):
    rng = np.random.default_rng(seed)
    every = jnp.array(2 * rng.normal(size=(3, 6, 5)), jnp.float32)
    return every, jnp.array(rng.integers(0, 5, 6), jnp.int32)


def log_p(z):
    return special.log_softmax(np.asarray(z, np.float64), axis=-1)


def reference_target(function, every, labels):
    """Return KDCL's target by its definition, one example at a time."""
    every, target = np.asarray(every, np.float64), []
    for i, y in enumerate(np.asarray(labels)):
        z = every[:, i]
        if function is losses.minimum_logit_kl:
            target.append((z - z[:, y : y + 1]).min(axis=0))
        else:
            target.append(z[np.argmin([-log_p(row)[y] for row in z])])
    return np.array(target)


class TestKdcl:
    def test_an_invalid_label_gives_nan_and_no_gradient_where_it_is_masked(self):
        every, labels = networks()
        labels = jnp.asarray(labels).at[0].set(-1)
        value, grad = jax.value_and_grad(
            lambda z: jnp.where(labels < 0, 0, losses.minimum_logit_kl(z, every, labels)).sum()
        )(every[0])
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        assert not np.any(grad[0])
        assert np.isnan(losses.minimum_logit_kl(every[0], every, labels)[0])

    @pytest.mark.parametrize("function", KDCL)
    def test_value_and_gradient(self, function):
        every, labels = networks()
        target = reference_target(function, every, labels)
        for k, own in enumerate(every):
            q, p = np.exp(log_p(target / 2)), np.exp(log_p(np.asarray(own) / 2))
            value = function(own, every, labels)
            np.testing.assert_allclose(value, special.rel_entr(q, p).sum(-1), rtol=1e-5, atol=1e-6)
            # The network is one of the targets, but only p has a gradient: (p - q) / T.
            grad = jax.jit(jax.grad(lambda e, k=k: jnp.sum(function(e[k], e, labels))))(every)
            np.testing.assert_allclose(grad[k], (p - q) / 2, atol=1e-6)
            assert np.all(np.delete(np.asarray(grad), k, axis=0) == 0)
        check_grads(
            lambda a: function(a, every, labels), (every[0],), order=1,
            modes=["fwd", "rev"], atol=0.02, rtol=0.02,  # float32 differences
        )  # fmt: skip

    def test_the_minimum_logit_target_is_most_confident_in_the_label(self):
        every, labels = networks(1)
        target = reference_target(losses.minimum_logit_kl, every, labels)
        of_label = np.take_along_axis(log_p(target), np.asarray(labels)[:, None], -1)
        each = [np.take_along_axis(log_p(z), np.asarray(labels)[:, None], -1) for z in every]
        assert np.all(of_label >= np.max(each, axis=0) - 1e-12)

    def test_the_best_network_has_zero_loss(self):
        every = jnp.array([[[4.0, 0.0]], [[1.0, 0.0]]])
        out = [losses.least_cross_entropy_kl(z, every, jnp.array([0])) for z in every]
        assert float(out[0][0]) == 0.0 < float(out[1][0])


class TestSwitch:
    @pytest.mark.parametrize("case", CASES)
    def test_golden(self, case):
        s, t, y = (GOLDEN[f"{case}/in/{k}"] for k in ("s_logits", "t_logits", "labels"))
        signal = losses.switch_signal(s, t, y)
        names = ("gap_switokd_T1", "student_label_switokd", "teacher_label_switokd")
        expected = [GOLDEN[f"{case}/L1_{name}/f64/value"] for name in names]
        actual = [signal.gap, signal.student_error, signal.teacher_error]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        if f"{case}/SwitOKD_step/f64/delta" in GOLDEN:
            step = {k: GOLDEN[f"{case}/SwitOKD_step/f64/{k}"] for k in ("delta", "teacher_updated")}
            np.testing.assert_allclose(signal.threshold, step["delta"], rtol=1e-5)
            assert bool(signal.expert) != bool(step["teacher_updated"])

    def test_a_mask_equals_slicing_with_nan_padding(self):
        (s, t, _), y = networks(2)
        expected = losses.switch_signal(s[:4], t[:4], y[:4])
        mask = jnp.array([1.0, 1, 1, 1, 0, 0])
        masked = losses.switch_signal(s.at[4].set(jnp.nan), t, y.at[5].set(-1), mask=mask)
        for a, b in zip(expected, masked, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_zero_errors_or_an_empty_mask_are_not_expert_mode(self):
        z, y = 1e4 * jnp.eye(3), jnp.arange(3)
        for signal in (losses.switch_signal(z, z, y),
                       losses.switch_signal(z, -z, y, mask=jnp.zeros(3))):  # fmt: skip
            assert not bool(signal.expert)
            assert np.all(np.isfinite(np.array(signal[:4])))

    def test_expert_mode_needs_a_better_teacher_and_a_wide_gap(self):
        y = jnp.array([0])
        student, teacher = jnp.array([[0.0, 0.4, -9.0]]), jnp.array([[0.0, -9.0, 0.0]])
        assert bool(losses.switch_signal(student, teacher, y).expert)
        assert not bool(losses.switch_signal(teacher, student, y).expert)  # the student is better
        assert not bool(losses.switch_signal(student, student + 0.01, y).expert)
        student, teacher = jnp.array([[0.0, 0.0, -200.0]]), jnp.array([[0.0, -200.0, 0.0]])
        tie = losses.switch_signal(student, teacher, y)  # different and equally wrong
        assert float(tie.teacher_error) == float(tie.student_error)
        assert float(tie.gap) > float(tie.threshold)
        assert not bool(tie.expert)

    def test_switch_signal_has_no_gradient(self):
        (s, t, _), y = networks(3)
        grads = jax.jit(jax.grad(lambda a, b: sum(losses.switch_signal(a, b, y)[:4]), (0, 1)))(s, t)
        assert all(np.all(np.asarray(g) == 0) for g in grads)


@pytest.mark.usefixtures("without_jaxtyping")
class TestErrors:
    @pytest.mark.parametrize("function", KDCL)
    def test_networks(self, function):
        every, labels = networks()
        with pytest.raises(ValueError, match=r"all_logits: shape \(6, 5\).*\(6, 5\)"):
            function(every[0], every[0], labels)
        with pytest.raises(ValueError, match=r"labels: shape \(5,\)"):
            function(every[0], every, labels[:5])
        with pytest.raises(ValueError, match="temperature: must"):
            function(every[0], every, labels, temperature=0.0)

    def test_switch(self):
        (s, t, _), y = networks()
        with pytest.raises(ValueError, match=r"logits: student \(6, 5\) and teacher \(1, 5\)"):
            losses.switch_signal(s, t[:1], y)
        with pytest.raises(ValueError, match=r"mask: shape \(1,\)"):
            losses.switch_signal(s, t, y, mask=jnp.ones(1))
