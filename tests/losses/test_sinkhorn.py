"""Sinkhorn against golden arrays and float64 numpy written from the paper.

Tolerances are relative to the largest entry: float64 1e-12 in the value and 1e-11 in the gradient,
float32 1e-5 and 1e-4. For finite differences they are the error of the differences.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from kdjax import losses
from kdjax.errors import UserError
from kdjax.losses._l1_cost import l1_cost
from kdjax.losses.sinkhorn import _kernel_space, _log_space, _Solver

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "sinkhorn.npz")
RELATIVE = ["B1_C2_normal", "B4_C3_normal", "B4_C100_normal", "B4_C100_extremenoisy"]
RELATIVE += ["B32_C2_normal", "B32_C100_normal"]
SWEEP = [(t, e, n) for t in (1, 2, 4) for e in (0.02, 0.05, 0.1, 1) for n in (1, 20)]


def total(s, t, temperature=2.0, epsilon=0.1, **options):
    out = losses.sinkhorn(s, t, temperature=temperature, epsilon=epsilon, **options)
    return jnp.sum(out.cost), out


def debiased(s, t, temperature=2.0, epsilon=0.1, **options):
    value = losses.sinkhorn_divergence(s, t, temperature=temperature, epsilon=epsilon, **options)
    return value, value


@functools.cache
def compiled(function=total, **options):
    """Return a function (s, t, masks) -> ((sum of costs, output), gradient in s)."""

    def run(s, t, masks=None):
        return function(s, t, **(masks or {}), **options)

    return jax.jit(jax.value_and_grad(run, has_aux=True))


@functools.cache
def traced(**options):
    """Return a function (s, t, temperature, epsilon) -> the same, with traced scalars."""
    return jax.jit(jax.value_and_grad(functools.partial(total, **options), has_aux=True))


def plan(s, t, temperature=2.0, epsilon=0.1, num_iters=20):
    """Return plan and dual value by numpy in log space, with rows of 1 and columns of n / m."""
    x, y = softmax(s / temperature, axis=1), softmax(t / temperature, axis=1)
    cost = np.abs(x[:, None] - y).sum(-1)
    n, m = cost.shape
    g = np.zeros(m)
    for _ in range(num_iters):
        f = -logsumexp(g - cost / epsilon, axis=1)
        g = np.log(n / m) - logsumexp(f[:, None] - cost / epsilon, axis=0)
    return np.exp(f[:, None] + g - cost / epsilon), cost


def rows(seed, n, classes=4, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=(n, classes))


def slopes(function, x, step=1e-5):
    """Return central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = step
        gradient[i] = (function(x + d) - function(x - d)) / (2 * step)
    return gradient


def assert_close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


class TestPublished:
    @pytest.mark.parametrize("case", RELATIVE)
    def test_value_and_gradient(self, case):
        s, t, value, grad = (
            GOLDEN[f"{case}/{key}"]
            for key in ("student", "teacher", "ref_loss_f64", "ref_grad_f64")
        )
        for dtype, close_value, close_grad in (
            (np.float64, 1e-12, 1e-11),
            (np.float32, 1e-5, 1e-4),
        ):
            with jax.enable_x64(dtype is np.float64):
                (actual, out), found_grad = compiled()(s.astype(dtype), t.astype(dtype))
            assert actual.dtype == found_grad.dtype == out.plan.dtype == dtype
            assert_close(1e-3 * np.float64(actual), value, close_value)
            assert_close(1e-3 * np.float64(found_grad), grad, close_grad)

    def test_one_hot_rows_have_almost_no_gradient(self):
        s, t, value, grad = (
            GOLDEN[f"B32_C2_onehot50/{key}"]
            for key in ("student", "teacher", "ref_loss_f64", "ref_grad_f64")
        )
        (actual, _), found_grad = compiled()(s.astype("f4"), t.astype("f4"))
        assert_close(1e-3 * np.float64(actual), value, 1e-5)
        np.testing.assert_allclose(1e-3 * found_grad, grad, atol=1e-15)

    def test_every_temperature_epsilon_and_number_of_iterations(self):
        s, t = GOLDEN["sweep/student"], GOLDEN["sweep/teacher"]
        with jax.enable_x64(True):
            for temperature, epsilon, n in SWEEP:
                key = f"sweep/T{temperature}_eps{epsilon}_it{n}"
                (actual, out), grad = traced(num_iters=n)(s, t, float(temperature), float(epsilon))
                assert_close(actual, GOLDEN[f"{key}/loss"], 1e-12)
                # at epsilon .02 the kernel spans exp(100): the reference loses these digits
                assert_close(grad, GOLDEN[f"{key}/grad"], 1e-10)
                np.testing.assert_allclose(out.row_error, GOLDEN[f"{key}/row_err"], atol=1e-12)
                assert int(out.num_iters) == n
                assert bool(out.converged) == bool(GOLDEN[f"{key}/row_err"] <= 0.01)

    def test_too_few_iterations_are_reported(self):
        # B = 32 one-hot rows of other class counts: about 2.7e-6 instead of the cost of full rows
        r = np.random.default_rng(0)
        s, t = (50 * np.eye(3)[r.integers(0, 3, 32)] for _ in range(2))
        (value, out), _ = compiled()(s.astype("f4"), t.astype("f4"))
        missing = np.abs((s > 0).sum(0) - (t > 0).sum(0)).sum()  # half of the mass, at a cost of 2
        assert missing > 1
        assert value < 1e-3
        assert not out.converged
        assert out.row_error > 0.1

    @pytest.mark.parametrize("epsilon", [0.1, 0.02])
    def test_scalars_may_be_traced_and_receive_gradients(self, epsilon):
        s, t = rows(0, 5), rows(1, 5)

        def by_hand(scalars):
            p, cost = plan(s, t, *scalars)
            return (p * cost).sum()

        with jax.enable_x64(True):
            grads = jax.jit(jax.grad(lambda a, b: total(s, t, a, b)[0], (0, 1)))(2.0, epsilon)
        expected = slopes(by_hand, np.array([2.0, epsilon]), step=1e-6)
        np.testing.assert_allclose(np.stack(grads), expected, rtol=1e-6, atol=1e-8)


class TestSpaces:
    def test_log_space_and_kernel_space_agree(self):
        s, t = rows(0, 6), rows(1, 6)
        a = b = jnp.ones(6)
        cost = jnp.asarray(plan(s, t)[1], jnp.float32)
        kernel = _kernel_space(cost, a, b, 0.1, 20)
        logs = _log_space(cost, a, b, _Solver(0.1, 20, None))
        for x, y in zip(kernel, logs, strict=True):
            np.testing.assert_allclose(x, y, rtol=3e-5, atol=1e-6)

    @pytest.mark.parametrize("epsilon", [0.1, 0.051, 0.049, 1e-2, 1e-3])
    def test_finite_for_any_epsilon_traced_or_not(self, epsilon):
        # rows without a near neighbour: exp(-2 / epsilon) is 0 in float32 from 0.019 down
        s, t = 50 * np.eye(3, dtype="f4")[[0, 0, 0, 1]], 50 * np.eye(3, dtype="f4")[[1, 2, 2, 1]]
        expected = plan(np.float64(s), np.float64(t), epsilon=epsilon)[0]
        (value, out), grad = traced()(s, t, 2.0, epsilon)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grad))
        # in float32, C / epsilon is known to 1e-7 of itself
        np.testing.assert_allclose(out.plan, expected, atol=1e-6 + 2e-6 / epsilon)
        np.testing.assert_allclose(total(s, t, epsilon=epsilon)[0], value, rtol=2e-6 / epsilon)

    def test_a_sweep_over_epsilon_equals_its_members(self):
        s, t = rows(0, 6).astype("f4"), rows(1, 6).astype("f4")
        over = jax.jit(jax.vmap(jax.value_and_grad(total, has_aux=True), (None, None, None, 0)))
        for epsilons in ([0.1, 0.2], [0.1, 0.01]):  # all in kernel space, then some in log space
            (value, _), grad = over(s, t, 2.0, jnp.array(epsilons))
            for i, epsilon in enumerate(epsilons):
                (one, _), one_grad = traced()(s, t, 2.0, epsilon)
                np.testing.assert_allclose(value[i], one, rtol=1e-5)
                np.testing.assert_allclose(grad[i], one_grad, atol=1e-5)

    def test_a_sweep_has_one_branch(self):
        over = jax.vmap(total, (None, None, None, 0))
        text = jax.jit(over).lower(jnp.ones((2, 2)), jnp.ones((2, 2)), 2.0, jnp.ones(3)).as_text()
        assert text.count("stablehlo.case") >= 1


class TestMasksAndSizes:
    @pytest.mark.parametrize("epsilon", [0.1, 0.02])
    def test_a_mask_equals_slicing(self, epsilon):
        s, t = rows(0, 6).astype("f4"), rows(1, 6).astype("f4")
        mask = np.array([1, 0, 1, 1, 0, 1])
        nan = np.where(mask[:, None] > 0, s, np.nan).astype("f4")
        real = mask > 0
        (value, out), grad = compiled(epsilon=epsilon)(nan, t, {"mask": mask})
        (short, _), short_grad = compiled(epsilon=epsilon)(s[real], t[real])
        np.testing.assert_allclose(value, short, rtol=1e-5)
        np.testing.assert_allclose(grad[real], short_grad, atol=1e-5)
        assert np.all(np.asarray(grad)[~real] == 0)
        assert np.all(np.asarray(out.cost)[~real] == 0)
        assert np.all(np.asarray(out.plan)[:, ~real] == 0)

    @pytest.mark.parametrize("epsilon", [0.1, 0.02])
    def test_different_numbers_of_rows(self, epsilon):
        s, t = rows(0, 6), rows(1, 4)
        p, cost = plan(s, t, epsilon=epsilon)
        out = losses.sinkhorn(s, np.concatenate([t, t]), epsilon=epsilon,
                              teacher_mask=np.arange(8) < 4)  # fmt: skip
        np.testing.assert_allclose(out.plan[:, :4], p, atol=2e-4)  # 2 / epsilon in float32
        np.testing.assert_allclose(out.cost, (p * cost).sum(1), atol=2e-4)
        np.testing.assert_allclose(out.plan.sum(0), [1.5] * 4 + [0] * 4, rtol=1e-5)

    @pytest.mark.parametrize("epsilon", [0.1, 0.02])
    def test_no_rows(self, epsilon):
        s, t = rows(0, 3).astype("f4"), rows(1, 3).astype("f4")
        for mask, other in ((np.zeros(3), np.ones(3)), (np.ones(3), np.zeros(3))):
            masks = {"mask": mask, "teacher_mask": other}
            for function in (total, debiased):
                (value, out), grad = compiled(function, epsilon=epsilon)(s, t, masks)
                assert value == 0
                assert np.all(np.asarray(grad) == 0)
                assert np.all(np.isfinite(out.row_error if function is total else out))

    def test_one_row_gives_the_distance(self):
        s, t = rows(0, 1), rows(1, 1)
        expected = np.abs(softmax(s / 2, axis=1) - softmax(t / 2, axis=1)).sum()
        np.testing.assert_allclose(total(s, t)[0], expected, rtol=1e-5)


class TestTolerance:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_gradient_matches_the_converged_cost(self, classes):
        s, t = rows(0, 3, classes), rows(1, 3, classes)

        def by_hand(x):
            p, cost = plan(x, t, num_iters=600)
            return (p * cost).sum()

        with jax.enable_x64(True):
            run = compiled(threshold=1e-11, num_iters=1000)
            (value, out), grad = run(s, t)
        assert out.converged
        assert 0 < int(out.num_iters) < 600
        assert int(out.num_iters) % 10 == 0
        np.testing.assert_allclose(value, by_hand(s), rtol=1e-9)
        np.testing.assert_allclose(grad, slopes(by_hand, s), atol=1e-7)

    def test_wider_tolerance_stops_sooner_and_non_convergence_is_reported(self):
        s, t = rows(0, 6).astype("f4"), rows(1, 6).astype("f4")
        actual = [compiled(threshold=x, num_iters=1000)(s, t)[0][1] for x in (1e-1, 1e-5)]
        assert int(actual[0].num_iters) < int(actual[1].num_iters) < 1000
        assert all(bool(out.converged) for out in actual)
        assert actual[0].row_error <= 1e-1
        assert actual[1].row_error <= 1e-5
        out = compiled(threshold=1e-5, num_iters=4, epsilon=0.02)(s, t)[0][1]
        assert int(out.num_iters) == 4
        assert not out.converged


class TestDivergence:
    @pytest.mark.parametrize("sizes", [(5, 5), (6, 4)])
    def test_value_from_the_primal_definition(self, sizes):
        s, t = (rows(i, n) for i, n in enumerate(sizes))

        def regularised(a, b):
            p, cost = plan(a, b, num_iters=600)
            p = p / len(a)
            product = 1 / (len(a) * len(b))
            return (p * cost).sum() + 0.1 * (p * np.log(p / product)).sum()

        expected = regularised(s, t) - (regularised(s, s) + regularised(t, t)) / 2
        with jax.enable_x64(True):
            (actual, _), _ = compiled(debiased, num_iters=600)(s, t)
        np.testing.assert_allclose(actual, len(s) * expected, rtol=1e-8)

    def test_no_bias_and_no_gradient_at_equal_outputs(self):
        z = rows(0, 6).astype("f4")
        run = compiled(debiased, num_iters=200)
        (value, _), grad = run(z, z[::-1])  # the order of rows does not matter
        np.testing.assert_allclose(value, 0, atol=1e-5)
        np.testing.assert_allclose(grad, 0, atol=1e-5)
        assert compiled()(z, z[::-1])[0][0] > 1e-3  # unlike the cost itself

    def test_gradient(self):
        s, t = rows(0, 4), rows(1, 4)
        with jax.enable_x64(True):
            run = compiled(debiased)
            _, grad = run(s, t)
            expected = slopes(lambda x: float(run(x, t)[0][0]), s)
        np.testing.assert_allclose(grad, expected, atol=1e-8)

    def test_never_negative(self):
        for seed in range(4):
            s = rows(seed, 6)
            t = s + 0.1 * rows(9, 6)
            (value, _), _ = compiled(debiased, num_iters=200)(s.astype("f4"), t.astype("f4"))
            assert value > -1e-5


class TestCost:
    @pytest.mark.parametrize("classes", [2, 16, 37])
    def test_value_and_gradient(self, classes):
        r = np.random.default_rng(0)
        x, y = (jnp.asarray(r.random((n, classes)), jnp.float32) for n in (5, 21))
        weights = r.normal(size=(5, 21)).astype("f4")
        value, pull = jax.vjp(l1_cost, x, y)
        apart = np.float64(x)[:, None] - np.float64(y)
        np.testing.assert_allclose(value, np.abs(apart).sum(-1), rtol=1e-5)
        expected = weights[..., None] * np.sign(apart)
        for actual, axis, sign in zip(pull(jnp.asarray(weights)), (1, 0), (1, -1), strict=True):
            np.testing.assert_allclose(actual, sign * expected.sum(axis), atol=1e-5)

    def test_a_tie_has_zero_gradient(self):
        x = jnp.full((2, 3), 0.25)
        grads = jax.grad(lambda a, b: jnp.sum(l1_cost(a, b)), (0, 1))(x, x)
        assert all(np.all(np.asarray(g) == 0) for g in grads)

    @pytest.mark.parametrize("size", [(1, 5), (7, 33), (16, 300)])
    def test_equal_outputs_have_the_same_gradient_eagerly_and_jitted(self, size):
        z = rows(0, *size).astype("f4")
        gradient = jax.grad(lambda s, t: total(s, t)[0])
        eager = gradient(z, z)
        np.testing.assert_allclose(jax.jit(gradient)(z, z), eager, atol=1e-5 * np.abs(eager).max())
        one = jnp.eye(size[1])
        network = jax.jit(jax.grad(lambda w: total(z @ w, z @ one)[0]))(one)
        np.testing.assert_allclose(network, z.T @ eager, atol=1e-4 * np.abs(z.T @ eager).max())

    @pytest.mark.parametrize("arguments", [0, (0, 1)])
    def test_memory_for_a_large_vocabulary(self, arguments):
        shape = jax.ShapeDtypeStruct((32, 50_257), jnp.float32)
        number = jax.ShapeDtypeStruct((), jnp.float32)
        function = jax.value_and_grad(lambda s, t, e: total(s, t, epsilon=e)[0], arguments)
        analysis = jax.jit(function).lower(shape, shape, number).compile().memory_analysis()
        assert analysis.temp_size_in_bytes < 64e6


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("function", [losses.sinkhorn, losses.sinkhorn_divergence])
@pytest.mark.parametrize(
    ("shapes", "options", "text"),
    [
        (((2, 3), (2, 4)), {}, r"student \(2, 3\) and teacher \(2, 4\) must be \[batch, classes\]"),
        (((3,), (3,)), {}, r"student \(3,\) and teacher"),
        (((2, 3), (2, 3)), {"mask": np.ones(3)}, r"mask: shape \(3,\) must be \(2,\)"),
        (((2, 3), (4, 3)), {"teacher_mask": np.ones(2)}, r"teacher_mask: .* must be \(4,\)"),
        (((2, 3), (2, 3)), {"epsilon": 0.0}, "epsilon: must be a finite number > 0, got 0"),
        (((2, 3), (2, 3)), {"temperature": -1.0}, "temperature: must be a finite number > 0"),
        (((2, 3), (2, 3)), {"threshold": 0.0}, "threshold: must be a finite number > 0"),
        (((2, 3), (2, 3)), {"num_iters": 0}, "num_iters: must be >= 1, got 0"),
    ],
)
def test_errors(function, shapes, options, text):
    with pytest.raises(UserError, match=text):
        function(*(np.ones(shape, "f4") for shape in shapes), **options)
