"""Calibration of classifiers: scores, calibration errors and temperature scaling.

An example is any element of `*batch`. The confidence is the largest softmax probability at T = 1.
Equal-width bins are (lo, hi]. Every function takes `mask` ([*batch], 1 counts, 0 does not): only
examples with mask 1 enter, and per-example results are 0 where the mask is 0; an error of no
examples is NaN. All is float32 and
may be jitted and vmapped. A label outside [0, classes) counts as misclassified, and gives NaN where
its probability is needed. Shapes that disagree, labels that are not integers and num_bins < 1 are
refused with a UserError.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from kdjax.errors import UserError
from kdjax.types import Array

__all__ = [
    "Reliability",
    "accuracy",
    "adaptive_calibration_error",
    "brier",
    "classwise_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability",
]

# A fitted temperature's range, and the halvings of its logarithm that exhaust float32.
_COLDEST, _HOTTEST, _HALVINGS = 0.05, 20.0, 28


Logits = Float[ArrayLike, "*batch classes"]
Labels = Int[ArrayLike, "*batch"]
Mask = Num[ArrayLike, "*batch"] | None
PerExample = Float[Array, "*batch"]
Scalar = Float[Array, ""]


class Reliability(NamedTuple):
    """Per bin: number of examples, accuracy, mean confidence (0 where empty)."""

    count: Float[Array, " bins"]  # pyright: ignore[reportIncompatibleMethodOverride]
    accuracy: Float[Array, " bins"]
    confidence: Float[Array, " bins"]


def _checked(logits: Logits, labels: Labels, mask: Mask) -> tuple[Array, Array, Array]:
    """Return logits as float32, labels, and the mask as booleans; refuse shapes that disagree."""
    logits, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        shapes = f"labels: shape {labels.shape} must be that of the logits {logits.shape}"
        raise UserError(f"{shapes} without the class axis")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"labels: dtype {labels.dtype} must be an integer (class indices)")
    counted = jnp.ones(labels.shape, bool) if mask is None else jnp.asarray(mask) > 0
    if counted.shape != labels.shape:
        raise UserError(f"mask: shape {counted.shape} must be that of the labels {labels.shape}")
    return logits, labels.astype(jnp.promote_types(labels.dtype, jnp.int32)), counted


def _flat(logits: Logits, labels: Labels, mask: Mask) -> tuple[Array, Array, Array]:
    logits, labels, counted = _checked(logits, labels, mask)
    return logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), counted.reshape(-1)


def _top(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the confidence [n] and 1 or 0 for a correct prediction [n], as float32."""
    correct = jnp.argmax(logits, axis=-1) == labels
    return jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1), correct.astype(jnp.float32)


def _pick(values: Array, labels: Array) -> Array:
    """Return values[..., labels]; NaN for a label that is no class (JAX wraps negative ones)."""
    index = jnp.where(labels < 0, values.shape[-1], labels)[..., None]
    return jnp.take_along_axis(values, index, axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def _edges(num_bins: int) -> Array:  # [num_bins - 1], without 0 and 1
    if num_bins < 1:
        raise UserError(f"num_bins: must be an integer >= 1, got {num_bins}")
    return jnp.arange(1, num_bins, dtype=jnp.float32) / num_bins


def _bin(confidence: Array, correct: Array, counted: Array, inner_edges: Array) -> Reliability:
    """Sort [n] examples into the bins (lo, hi] between the sorted inner edges [bins - 1]."""
    index = jnp.sum(confidence[:, None] > inner_edges, axis=-1)
    member = (index == jnp.arange(inner_edges.size + 1)[:, None]) & counted
    count = jnp.sum(member, axis=-1, dtype=jnp.float32)

    def mean(values: Array) -> Array:
        # A sum, not a matmul: accelerators multiply float32 at lower precision by default.
        return jnp.sum(jnp.where(member, values, 0.0), axis=-1) / jnp.maximum(count, 1)

    return Reliability(count, mean(correct), mean(confidence))


def weighted_gap(bins: Reliability) -> Array:
    """Return sum_b n_b / N |accuracy - confidence|."""
    gaps = bins.count * jnp.abs(bins.accuracy - bins.confidence)
    return jnp.sum(gaps) / _divisor(jnp.sum(bins.count))


def _divisor(count: Array) -> Array:
    """Return the number of examples as float32, NaN for none."""
    return jnp.where(count > 0, count.astype(jnp.float32), jnp.nan)


def accuracy(logits: Logits, labels: Labels, *, mask: Mask = None) -> PerExample:
    """1 where the largest logit is the label's (the first one on a tie), else 0.

    Returns:
        [*batch], 0 or 1; average it for top-1 accuracy.

    >>> logits = jnp.array([[2.0, 1.0], [0.0, 1.0]])
    >>> print(accuracy(logits, jnp.array([0, 0])))
    [1. 0.]
    """
    logits, labels, counted = _checked(logits, labels, mask)
    return ((jnp.argmax(logits, axis=-1) == labels) & counted).astype(jnp.float32)


def negative_log_likelihood(logits: Logits, labels: Labels, *, mask: Mask = None) -> PerExample:
    """-log p_y of each example.

    Returns:
        [*batch], nats.

    >>> print(negative_log_likelihood(jnp.zeros((1, 2)), jnp.array([1])))
    [0.6931472]
    """
    logits, labels, counted = _checked(logits, labels, mask)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return jnp.where(counted, -_pick(log_p, labels), 0.0)


def brier(logits: Logits, labels: Labels, *, mask: Mask = None) -> PerExample:
    """Brier's (1950) squared distance to the one-hot label: sum_c (p_c - 1[c = y])^2.

    Returns:
        [*batch], between 0 and 2 (a sum over classes, not a mean).

    >>> print(brier(jnp.zeros((1, 2)), jnp.array([1])))
    [0.5]
    """
    logits, labels, counted = _checked(logits, labels, mask)
    p = jax.nn.softmax(logits, axis=-1)
    distance = jnp.sum((p - jax.nn.one_hot(labels, p.shape[-1])) ** 2, axis=-1)
    return jnp.where(counted, distance, 0.0)


def bin_confidences(confidence: ArrayLike, correct: ArrayLike, *, num_bins: int) -> Reliability:
    """Return count, accuracy and mean confidence in equal-width bins, as `reliability` does.

    For predictions whose logits are not at hand, such as the tokens of texts.

    Args:
        confidence: [n], the probabilities of the predicted classes.
        correct: [n], 1 for a correct prediction, else 0.
        num_bins: number of bins.

    >>> print(bin_confidences(jnp.array([0.9, 0.6]), jnp.array([1, 0]), num_bins=2).count)
    [0. 2.]
    """
    confidence, correct = (jnp.asarray(x, jnp.float32) for x in (confidence, correct))
    return _bin(confidence, correct, jnp.ones(confidence.shape, bool), _edges(num_bins))


def reliability(
    logits: Logits, labels: Labels, *, num_bins: int = 15, mask: Mask = None
) -> Reliability:
    """Count, accuracy and mean confidence in equal-width bins of the confidence.

    Returns:
        Reliability of [num_bins] arrays; empty bins hold 0.

    >>> logits = jnp.array([[9.0, 0.0], [0.1, 0.0]])
    >>> print(reliability(logits, jnp.array([0, 1]), num_bins=2).count)
    [0. 2.]
    """
    logits, labels, counted = _flat(logits, labels, mask)
    return _bin(*_top(logits, labels), counted, _edges(num_bins))


def expected_calibration_error(
    logits: Logits, labels: Labels, *, num_bins: int = 15, mask: Mask = None
) -> Scalar:
    """ECE (equation 3 of arXiv 1706.04599): sum_b n_b / N |accuracy_b - confidence_b|.

    Returns:
        [], between 0 and 1; couples the batch: not to be averaged over batches.

    >>> logits = jnp.array([[99.0, 0.0], [99.0, 0.0]])
    >>> print(expected_calibration_error(logits, jnp.array([0, 1])))
    0.5
    """
    return weighted_gap(reliability(logits, labels, num_bins=num_bins, mask=mask))


def maximum_calibration_error(
    logits: Logits, labels: Labels, *, num_bins: int = 15, mask: Mask = None
) -> Scalar:
    """MCE (equation 5 of arXiv 1706.04599): the largest |accuracy_b - confidence_b|.

    Returns:
        [], between 0 and 1; couples the batch.

    >>> logits = jnp.array([[99.0, 0.0], [0.0, 0.0]])
    >>> print(maximum_calibration_error(logits, jnp.array([0, 0])))
    0.5
    """
    bins = reliability(logits, labels, num_bins=num_bins, mask=mask)
    largest = jnp.max(jnp.abs(bins.accuracy - bins.confidence))  # an empty bin's gap is 0
    return jnp.where(jnp.sum(bins.count) > 0, largest, jnp.nan)


def adaptive_calibration_error(
    logits: Logits, labels: Labels, *, num_bins: int = 15, mask: Mask = None
) -> Scalar:
    """ECE over equal-mass bins: inner edge k is the confidence of rank ceil(k N / num_bins).

    Equal confidences share a bin, so the order of the examples does not matter. Source: Nguyen and
    O'Connor 2015 (arXiv 1508.05154); of the top label, not of each class.

    Returns:
        [], between 0 and 1; couples the batch.

    >>> logits = jnp.array([[99.0, 0.0], [99.0, 0.0]])
    >>> print(adaptive_calibration_error(logits, jnp.array([0, 1])))
    0.5
    """
    equal_width = _edges(num_bins)
    logits, labels, counted = _flat(logits, labels, mask)
    confidence, correct = _top(logits, labels)
    ranked = jnp.sort(jnp.where(counted, confidence, jnp.inf))  # masked examples rank last
    rank = -(-jnp.arange(1, num_bins) * jnp.sum(counted) // num_bins)
    inner_edges = ranked[jnp.maximum(rank - 1, 0)] if ranked.size else equal_width
    return weighted_gap(_bin(confidence, correct, counted, inner_edges))


def classwise_calibration_error(
    logits: Logits, labels: Labels, *, num_bins: int = 15, mask: Mask = None
) -> Scalar:
    """Mean over classes of the ECE of "is it class c?", p_c its confidence (arXiv 1904.01685).

    Returns:
        [], between 0 and 1; couples the batch.

    >>> logits = jnp.array([[99.0, 0.0], [99.0, 0.0]])
    >>> print(classwise_calibration_error(logits, jnp.array([0, 1])))
    0.5
    """
    logits, labels, counted = _flat(logits, labels, mask)
    p = jax.nn.softmax(logits, axis=-1)
    index = jnp.sum(p[..., None] > _edges(num_bins), axis=-1)
    gap = jnp.where(counted[:, None], jax.nn.one_hot(labels, p.shape[-1]) - p, 0.0)
    # n_b / N |accuracy_b - confidence_b| is |sum of gaps| / N: one scatter-add for all classes.
    sums = jnp.zeros((p.shape[-1], num_bins)).at[jnp.arange(p.shape[-1]), index].add(gap)
    return jnp.mean(jnp.sum(jnp.abs(sums), axis=-1)) / _divisor(jnp.sum(counted))


def fit_temperature(logits: Logits, labels: Labels, *, mask: Mask = None) -> Scalar:
    """The T in [0.05, 20] that minimises the mean negative log-likelihood of softmax(z / T).

    The negative log-likelihood is convex in 1 / T, so the sign of its slope is bisected in log T:
    no step size, and separable data end at 0.05. Fit on validation data, never on test data. The
    result carries no gradient.

    Returns:
        [], the temperature; 1 where it has no effect (equal logits, no examples).

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; the solver is ours.

    >>> logits = jnp.array([[jnp.log(9.0), 0.0], [jnp.log(9.0), 0.0], [jnp.log(9.0), 0.0]])
    >>> print(fit_temperature(logits, jnp.array([0, 0, 1])).round(3))  # log 9 / log 2
    3.17
    """
    logits, labels, counted = _flat(logits, labels, mask)
    logits = jax.lax.stop_gradient(logits)
    relative = jnp.where(counted[:, None], logits - _pick(logits, labels)[:, None], 0.0)

    def slope(log_temperature: Array) -> Array:
        p = jax.nn.softmax(relative * jnp.exp(-log_temperature), axis=-1)
        return jnp.sum(jnp.where(p > 0, p * relative, 0.0))  # d(sum NLL) / d(1/T); p may be 0

    def halve(_: Array, interval: Array) -> Array:
        middle = jnp.mean(interval)
        # The slope underflows to 0 where all predictions are correct by a wide margin: go colder.
        return interval.at[jnp.where(slope(middle) <= 0, 1, 0)].set(middle)

    interval = jax.lax.fori_loop(0, _HALVINGS, halve, jnp.log(jnp.array([_COLDEST, _HOTTEST])))
    temperature = jnp.clip(jnp.exp(jnp.mean(interval)), _COLDEST, _HOTTEST)
    spread = jnp.sum(jnp.abs(relative))
    return jnp.where(spread == 0, 1.0, jnp.where(jnp.isnan(spread), jnp.nan, temperature))
