"""Divergences of two distributions that keep their digits where the two are nearly equal.

At a high temperature, or with copied weights, log p - log q is no larger than the rounding errors
of both, and sum p (log p - log q) is a small difference of large summands. Here log(p / q) comes
from the difference of the logits, and every class adds a number >= 0: with r = log(p / q),

    KL(p || q) = sum (p r - p + q) = sum q (e^r r - e^r + 1),

by a series for small r. Gradients are closed forms in p, q, p - q and r, with the same care.

Distributions are logits over the last axis. `difference` is z_p - z_q, passed beside z_p and z_q
because it is exact only before the division by a temperature.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.losses._checks import check_pair, check_positive
from kdjax.losses._types import Number
from kdjax.types import Array

_SERIES = 0.25  # up to this |r|, p r - p + q and e^r - 1 are sums of powers
# Classes agree if |log(p / q)| is at most this part of the total variation, plus what equal logits
# leave where a compiler rounds the two sides differently.
_TIE, _LEFT = 2.0**-20, 2.0**-40


class LogitPair(NamedTuple):
    """Logits of student and teacher, divided by T, and `difference`, (teacher - student) / T."""

    student: Array
    teacher: Array
    difference: Array


class _Comparison(NamedTuple):
    p: Array
    q: Array
    ratio: Array  # log(p / q)
    gap: Array  # p - q
    error: Array  # [..., 1]: of ratio, the same for all classes
    shift: Array  # [..., 1]: log sum exp z_p - log sum exp z_q


def logit_pair(student: ArrayLike, teacher: ArrayLike, temperature: Number) -> LogitPair:
    """Check student, teacher and temperature, and return both as float32 logits of T = 1."""
    check_pair(student, teacher)
    check_positive("temperature", temperature)
    s, t = (jnp.asarray(z, jnp.float32) for z in (student, teacher))
    # A class may be ruled out by -inf on both sides: it differs by 0.
    difference = jnp.where(s == t, 0.0, t - s)
    return LogitPair(s / temperature, t / temperature, difference / temperature)


def _softmax(logits: Array) -> tuple[Array, Array, Array, Array]:
    """Return the probabilities, the logits less their largest, it, and log sum exp less it."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    below = logits - largest
    exponentials = jnp.exp(below)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / total, below, largest, jnp.log(total)


def _size(x: Array) -> Array:
    """Return the largest finite magnitude of each row, [..., 1]."""
    return jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0.0), axis=-1, keepdims=True)


def _beyond_linear(r: Array) -> Array:
    """Return e^r - 1 - r for |r| <= 1/4, to float32's precision."""
    series = 1 / 5040 * r + 1 / 720
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2):
        series = series * r + factor
    return series * r * r


def _series(p: Array, q: Array, r: Array) -> tuple[Array, Array]:
    """Return if r = log(p / q) is small, and r with 0 where it is not.

    Logits of 1e20 on one side round r away: then p and q themselves say that it is not small.
    """
    small = (jnp.abs(r) < _SERIES) & (jnp.abs(p - q) <= q / 2)
    return small, jnp.where(small, r, 0.0)


def _summand(p: Array, q: Array, r: Array, gap: Array) -> Array:
    """Return p r - (p - q) >= 0 of every class, r = log(p / q); p = 0 leaves q."""
    small, safe = _series(p, q, r)
    near = q * (safe * safe - _beyond_linear(safe) * (1 - safe))
    return jnp.where(small, near, jnp.where(p > 0, p * r, 0.0) - gap)


def _compare(p_logits: Array, q_logits: Array, difference: Array) -> _Comparison:
    p, p_below, p_largest, p_rest = _softmax(p_logits)
    q, q_below, q_largest, q_rest = _softmax(q_logits)
    shift = p_largest - q_largest
    # The difference of the logits is exact where it is small beside them. Where it is not, as with
    # logits of 1 and of 1e8, it rounds the smaller side away.
    apart_by = jnp.max(jnp.abs(difference), axis=-1, keepdims=True) + jnp.abs(shift)
    near = 8 * apart_by < _size(p_logits) + _size(q_logits)
    ruled_out = jnp.isneginf(p_below) & jnp.isneginf(q_below)
    separate = jnp.where(ruled_out, 0.0, p_below - q_below)
    # In two steps: a large difference of the largest logits must not round away the rest.
    ratio = jnp.where(near, difference - shift, separate) - (p_rest - q_rest)
    small, safe = _series(p, q, ratio)
    gap = jnp.where(small, q * (safe + _beyond_linear(safe)), p - q)
    # Probabilities sum to 1, so what p - q sums to is the rounding error of the shift.
    error = jnp.sum(gap, axis=-1, keepdims=True)
    return _Comparison(p, q, ratio, gap, error, shift + (p_rest - q_rest) + error)


def _corrected(*arguments: Array) -> _Comparison:
    """Compare, and take the error from the ratio and from p - q."""
    both = _compare(*arguments)
    return both._replace(ratio=both.ratio - both.error, gap=both.gap - both.p * both.error)


def shift_of(p_logits: Array, q_logits: Array, difference: Array) -> Array:
    """Return log sum exp z_p - log sum exp z_q of nearly equal logits, without cancellation."""
    return _compare(p_logits, q_logits, difference).shift[..., 0]


def _along(gradients: tuple[Array, Array], tangents: tuple[Array, ...]) -> Array:
    """Return the derivative along the tangents of both logits; that of `difference` is in them."""
    return jnp.sum(gradients[0] * tangents[0] + gradients[1] * tangents[1], axis=-1)


def _centred(p: Array, values: Array) -> Array:
    """Return the gradient in the logits of sum p values, `values` held constant."""
    return p * (values - jnp.sum(p * values, axis=-1, keepdims=True))


@jax.custom_jvp
def kl(p_logits: Array, q_logits: Array, difference: Array) -> Array:
    """Return KL(p || q) in nats, never negative."""
    return _kl(_compare(p_logits, q_logits, difference))


def _kl(both: _Comparison) -> Array:
    # The error enters in a known way: one pass over the classes is saved.
    total, error = jnp.sum(_summand(*both[:4]), axis=-1), both.error[..., 0]
    return jnp.maximum((total - error * error / 2) / (1 + error), 0.0)


@kl.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    both = _compare(*primals)
    value = _kl(both)
    in_p = jnp.where(both.p > 0, both.p * (both.ratio - (both.error + value[..., None])), 0.0)
    return value, _along((in_p, both.p * both.error - both.gap), tangents)


@jax.custom_jvp
def jensen_shannon(p_logits: Array, q_logits: Array, difference: Array, weight: Array) -> Array:
    """Return w KL(p || m) + (1 - w) KL(q || m), m = w p + (1 - w) q, never negative."""
    return _to_mixture(_corrected(p_logits, q_logits, difference), weight)[0]


def _to_mixture(both: _Comparison, weight: Array) -> tuple[Array, ...]:
    """Return the divergence, those of p and q from the mixture m, and log(p / m), log(q / m)."""
    p, q, ratio, gap = both[:4]
    # From the log ratio alone, by expm1 of a number below 0, which never overflows. `where`, not
    # abs and min: their subgradients at equal probabilities would be wrong.
    p_above = ratio >= 0
    share = jnp.where(p_above, 1 - weight, weight)
    above = -jnp.log1p(share * jnp.expm1(jnp.where(p_above, -ratio, ratio)))
    p_ratio = jnp.where(p_above, above, ratio + above)
    q_ratio = jnp.where(p_above, above - ratio, above)
    mixture = weight * p + (1 - weight) * q
    of_p = jnp.sum(_summand(p, mixture, p_ratio, (1 - weight) * gap), axis=-1)
    of_q = jnp.sum(_summand(q, mixture, q_ratio, -weight * gap), axis=-1)
    return weight * of_p + (1 - weight) * of_q, of_p, of_q, p_ratio, q_ratio


@jensen_shannon.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    *logits, weight = primals
    both = _corrected(*logits)
    value, of_p, of_q, p_ratio, q_ratio = _to_mixture(both, weight)
    in_p = weight * _centred(both.p, jnp.where(both.p > 0, p_ratio, 0.0))
    in_q = (1 - weight) * _centred(both.q, jnp.where(both.q > 0, q_ratio, 0.0))
    return value, _along((in_p, in_q), tangents) + (of_p - of_q) * tangents[3]


@jax.custom_jvp
def kl_to_mixture(p_logits: Array, q_logits: Array, difference: Array, weight: Array) -> Array:
    """Return KL(p || m), m = w p + (1 - w) q, never negative."""
    return _to_mixture(_corrected(p_logits, q_logits, difference), weight)[1]


@kl_to_mixture.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    *logits, weight = primals
    both = _corrected(*logits)
    _, value, _, p_ratio, _ = _to_mixture(both, weight)
    excess = jnp.expm1(p_ratio)  # p / m - 1
    in_p = _centred(both.p, jnp.where(both.p > 0, p_ratio, 0.0) - weight * excess)
    in_weight = -jnp.sum((1 + excess) * both.gap, axis=-1)
    along = _along((in_p, (weight - 1) * _centred(both.q, excess)), tangents)
    return value, along + in_weight * tangents[3]


@jax.custom_jvp
def total_variation(p_logits: Array, q_logits: Array, difference: Array) -> Array:
    """Return 1/2 sum |p - q|; a class on which both agree has gradient 0."""
    return 0.5 * jnp.sum(jnp.abs(_corrected(p_logits, q_logits, difference).gap), axis=-1)


@total_variation.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    both = _corrected(*primals)
    value = 0.5 * jnp.sum(jnp.abs(both.gap), axis=-1)
    agree = jnp.abs(both.ratio) <= _TIE * value[..., None] + _LEFT
    sign = jnp.where(agree, 0.0, 0.5 * jnp.sign(both.ratio))
    return value, _along((_centred(both.p, sign), -_centred(both.q, sign)), tangents)
