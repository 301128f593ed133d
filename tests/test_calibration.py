"""Calibration against a slow loop in float64, golden arrays and scipy."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from kdjax import calibration

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "divergence.npz")
BINNED = [
    calibration.expected_calibration_error,
    calibration.maximum_calibration_error,
    calibration.adaptive_calibration_error,
    calibration.classwise_calibration_error,
]
EACH = [calibration.accuracy, calibration.negative_log_likelihood, calibration.brier]
ROWS = {f.__name__: f for f in [*BINNED, *EACH, calibration.reliability]}
ROWS["fit_temperature"] = calibration.fit_temperature


def data(seed=0, n=60, classes=4, scale=2.0):
    rng = np.random.default_rng(seed)
    logits = jnp.array(scale * rng.normal(size=(n, classes)), jnp.float32)
    own = np.argmax(np.asarray(logits) + 2 * rng.normal(size=(n, classes)), -1)
    return logits, jnp.array(own, jnp.int32)


def loop_bins(confidence, right, edges):
    """Return (count, accuracy, confidence) of the bins (lo, hi] by loops over examples and bins."""
    bins = []
    for lo, hi in itertools.pairwise(edges):
        members = [i for i, c in enumerate(confidence) if lo < c <= hi]
        bins.append((
            len(members),
            sum(right[i] for i in members) / max(len(members), 1),
            sum(confidence[i] for i in members) / max(len(members), 1),
        ))  # fmt: skip
    return bins


def loop_gap(bins):
    return sum(n * abs(a - c) for n, a, c in bins) / max(sum(n for n, _, _ in bins), 1)


def reference(name, logits, labels, num_bins):
    p, y = special.softmax(np.asarray(logits, np.float64), -1), np.asarray(labels)
    confidence, right = p.max(-1), (p.argmax(-1) == y).astype(float)
    edges = np.linspace(0, 1, num_bins + 1)
    if name == "classwise_calibration_error":
        each = [loop_gap(loop_bins(p[:, c], y == c, edges)) for c in range(p.shape[1])]
        return np.mean(each)
    if name == "adaptive_calibration_error":
        ranked, n = np.sort(confidence), len(confidence)
        inner = [ranked[max(-(-k * n // num_bins) - 1, 0)] for k in range(1, num_bins)]
        return loop_gap(loop_bins(confidence, right, [-1, *inner, 2]))
    bins = loop_bins(confidence, right, edges)
    if name == "maximum_calibration_error":
        return max(abs(a - c) for n, a, c in bins if n)
    return loop_gap(bins) if name == "expected_calibration_error" else np.array(bins).T


class TestBins:
    @pytest.mark.parametrize("num_bins", [1, 5, 15])
    @pytest.mark.parametrize("name", [*(f.__name__ for f in BINNED), "reliability"])
    def test_against_the_loop(self, name, num_bins):
        for seed in range(3):
            logits, labels = data(seed)
            expected = reference(name, logits, labels, num_bins)
            actual = np.array(ROWS[name](logits, labels, num_bins=num_bins))
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("num_bins", [5, 10, 15, 20])
    def test_golden_2000(self, num_bins):
        logits, labels = GOLDEN["ece2000/in/logits"], GOLDEN["ece2000/in/labels"]
        actual = calibration.expected_calibration_error(logits, labels, num_bins=num_bins)
        expected = GOLDEN[f"ece2000/ECE{num_bins}_gpleiss/f64/value"][0]
        np.testing.assert_allclose(actual, expected, rtol=1e-5)

    @pytest.mark.parametrize("case", ["b8_c10", "b16_c100", "extreme50_b8_c10"])
    def test_golden_small(self, case):
        for side in "st":
            logits, labels = GOLDEN[f"{case}/in/{side}_logits"], GOLDEN[f"{case}/in/labels"]
            actual = calibration.expected_calibration_error(logits, labels)
            np.testing.assert_allclose(
                actual, GOLDEN[f"{case}/ECE15_gpleiss_{side}/f64/value"][0], rtol=1e-5, atol=1e-7
            )

    def test_an_edge_belongs_to_the_lower_bin(self):
        halves = jnp.zeros((3, 2))  # confidence exactly 1/2
        labels = jnp.zeros(3, jnp.int32)
        assert calibration.reliability(halves, labels, num_bins=2).count.tolist() == [3, 0]
        assert calibration.reliability(halves, labels, num_bins=10).count.tolist()[4] == 3
        sure = jnp.array([[1e4, 0.0]])
        assert calibration.reliability(sure, labels[:1]).count.tolist()[-1] == 1

    def test_adaptive_bins_hold_equal_mass_and_ignore_the_order_of_ties(self):
        logits, labels = data(4, n=30)
        tied = jnp.round(logits)  # many equal confidences with different predictions
        order = np.random.default_rng(0).permutation(30)
        first = calibration.adaptive_calibration_error(tied, labels, num_bins=7)
        again = calibration.adaptive_calibration_error(tied[order], labels[order], num_bins=7)
        np.testing.assert_allclose(first, again, rtol=1e-6)
        per_example = calibration.adaptive_calibration_error(logits, labels, num_bins=30)
        p = special.softmax(np.asarray(logits, np.float64), -1)
        gaps = np.abs((p.argmax(-1) == np.asarray(labels)) - p.max(-1))
        np.testing.assert_allclose(per_example, gaps.mean(), rtol=1e-5)

    def test_perfect_calibration_in_expectation(self):
        rng = np.random.default_rng(1)
        logits = 2 * rng.normal(size=(20000, 5))
        labels = (special.softmax(logits, -1).cumsum(-1) > rng.random((20000, 1))).argmax(-1)
        for function in BINNED[:1] + BINNED[2:]:
            assert float(function(jnp.array(logits), jnp.array(labels))) < 0.02  # 3 sd of noise


class TestEach:
    def test_against_numpy(self):
        logits, labels = data(5)
        p = special.softmax(np.asarray(logits, np.float64), -1)
        one_hot = np.eye(4)[np.asarray(labels)]
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
        close(calibration.accuracy(logits, labels), p.argmax(-1) == np.asarray(labels))
        close(calibration.brier(logits, labels), ((p - one_hot) ** 2).sum(-1))
        close(calibration.negative_log_likelihood(logits, labels), -np.log((p * one_hot).sum(-1)))

    def test_an_invalid_label_is_never_correct(self):
        logits, labels = jnp.zeros((2, 3)), jnp.array([-1, 3])
        assert np.all(np.isnan(calibration.negative_log_likelihood(logits, labels)))
        assert calibration.accuracy(logits, labels).tolist() == [0, 0]
        masked = calibration.negative_log_likelihood(logits, labels, mask=jnp.zeros(2))
        assert masked.tolist() == [0, 0]


class TestTemperature:
    @pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
    def test_against_scipy(self, factor):
        logits, labels = data(6, n=200)
        z, y = np.asarray(logits, np.float64) * factor, np.asarray(labels)

        def nll(log_t):
            return -special.log_softmax(z * np.exp(-log_t), -1)[np.arange(200), y].mean()

        best = optimize.minimize_scalar(nll, bounds=np.log([0.05, 20]), method="bounded",
                                        options={"xatol": 1e-9})  # fmt: skip
        actual = calibration.fit_temperature(logits * factor, labels)
        np.testing.assert_allclose(actual, np.exp(best.x), rtol=1e-4)  # the minimum is flat

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
    def test_separable_data_give_the_lowest_temperature(self, scale):
        labels = jnp.arange(4)
        right = calibration.fit_temperature(scale * jnp.eye(4), labels)
        np.testing.assert_allclose(right, 0.05, rtol=1e-6)
        wrong = calibration.fit_temperature(-scale * jnp.eye(4), labels)
        np.testing.assert_allclose(wrong, 20.0, rtol=1e-6)

    def test_temperature_is_one_if_it_has_no_effect(self):
        assert float(calibration.fit_temperature(jnp.ones((3, 4)), jnp.arange(3))) == 1.0

    def test_classes_of_logit_minus_infinity_are_ruled_out(self):
        logits = jnp.array([[1.0, 0.0, -1e9], [0.0, 1.0, -1e9], [0.5, 0.0, -1e9]])
        labels = jnp.array([0, 1, 1])
        expected = calibration.fit_temperature(logits, labels)
        actual = calibration.fit_temperature(jnp.where(logits < -1e8, -jnp.inf, logits), labels)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
        logits, labels = data()
        nothing = calibration.fit_temperature(logits, labels, mask=jnp.zeros(60))
        assert float(nothing) == 1.0

    def test_nan_gives_nan(self):
        logits, labels = data()
        assert np.isnan(calibration.fit_temperature(logits.at[3, 1].set(jnp.nan), labels))

    def test_temperature_has_no_gradient(self):
        logits, labels = data(7)
        assert np.all(np.asarray(jax.grad(calibration.fit_temperature)(logits, labels)) == 0)


class TestContract:
    def test_every_public_function_has_a_row(self):
        assert sorted(ROWS) == sorted(set(calibration.__all__) - {"Reliability"})

    @pytest.mark.parametrize("name", sorted(ROWS))
    def test_jit_vmap_dtype_shape_and_mask(self, name):
        function = ROWS[name]
        logits, labels = data(8, n=24)
        mask = jnp.array(np.random.default_rng(2).integers(0, 2, 24), jnp.float32)
        real = np.asarray(mask) > 0
        sliced = np.array(function(logits[real], labels[real]))
        dirty = jnp.where(mask[:, None] > 0, logits, jnp.nan), jnp.where(mask > 0, labels, -1)
        masked = np.array(jax.jit(function)(*dirty, mask=mask))
        per_example = function in EACH
        if per_example:
            assert np.all(masked[~real] == 0)
            masked = masked[real]
        np.testing.assert_allclose(masked, sliced, rtol=1e-5, atol=1e-6)
        expected = np.array(function(logits, labels))
        assert expected.dtype == np.float32
        folded = np.array(function(logits.reshape(2, 12, 4), labels.reshape(2, 12)))
        np.testing.assert_allclose(folded.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
        both = jax.vmap(function)(logits.reshape(2, 12, 4), labels.reshape(2, 12))
        loop = [function(logits[i : i + 12], labels[i : i + 12]) for i in (0, 12)]
        for actual, *each in zip(jax.tree.leaves(both), *map(jax.tree.leaves, loop), strict=True):
            np.testing.assert_allclose(actual, jnp.stack(each), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", sorted(ROWS))
    def test_finite_at_the_extremes_and_in_bfloat16(self, name):
        logits, labels = data(9, n=8)
        for z in (1e4 * jnp.sign(logits), logits.astype(jnp.bfloat16) * 1e4):
            assert np.all(np.isfinite(np.array(ROWS[name](z, labels))))

    @pytest.mark.parametrize("name", sorted(ROWS))
    def test_an_error_of_no_examples_is_nan_and_nothing_else_is(self, name):
        logits, labels = data(9, n=8)
        for empty in (
            ROWS[name](jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32)),
            ROWS[name](logits, labels, mask=jnp.zeros(8)),
        ):
            is_error = ROWS[name] in BINNED
            assert np.all((np.isnan if is_error else np.isfinite)(np.array(empty)))


@pytest.mark.usefixtures("without_jaxtyping")
class TestErrors:
    @pytest.mark.parametrize("name", sorted(ROWS))
    def test_shapes_and_dtypes(self, name):
        logits = jnp.zeros((4, 3))
        with pytest.raises(ValueError, match=r"labels: shape \(3,\).*\(4, 3\)"):
            ROWS[name](logits, jnp.zeros(3, jnp.int32))
        with pytest.raises(ValueError, match="labels: dtype float32 must be an integer"):
            ROWS[name](logits, jnp.zeros(4))
        with pytest.raises(ValueError, match=r"mask: shape \(1,\).*\(4,\)"):
            ROWS[name](logits, jnp.zeros(4, jnp.int32), mask=jnp.ones(1))

    @pytest.mark.parametrize("name", sorted(ROWS))
    @pytest.mark.parametrize("dtype", [np.int8, np.uint8])
    def test_labels_of_one_byte(self, name, dtype):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 300)), jnp.float32)
        labels = np.array([3, 44, 100, 127])
        np.testing.assert_allclose(
            ROWS[name](logits, labels.astype(dtype)), ROWS[name](logits, labels), rtol=1e-6
        )

    @pytest.mark.parametrize("function", [*BINNED, calibration.reliability])
    def test_zero_bins_are_an_error(self, function):
        with pytest.raises(ValueError, match="num_bins: must be an integer >= 1, got 0"):
            function(jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32), num_bins=0)
