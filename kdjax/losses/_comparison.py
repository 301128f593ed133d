"""Divergences that stay accurate where the two distributions are nearly equal.

At a high temperature, or with copied weights, log p - log q is no larger than the rounding errors
of both, and sum p (log p - log q) is a small difference of large summands. Here log(p / q) comes
from the difference of the logits, and every class adds a number >= 0: with r = log(p / q),

    KL(p || q) = sum (p r - p + q) = sum q (e^r r - e^r + 1),

by a series for small r. Gradients are closed forms in p, q, p - q and r.

Distributions are logits over the last axis. The difference of the logits, and of each from its
largest, is taken before the division by a temperature, where it is exact for near numbers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from kdjax.losses._checks import check_pair, check_positive
from kdjax.losses._types import Number
from kdjax.types import Array

_SERIES = 0.25  # up to this |r|, p r - p + q and e^r - 1 are sums of powers
# Classes agree if |log(p / q)| is at most _TIE times the total variation, plus _LEFT: the rest that
# equal logits leave where a compiler rounds the two sides differently.
_TIE, _LEFT = 2.0**-20, 2.0**-40


class Side(NamedTuple):
    """Logits of one distribution divided by T, and `below`: less the largest, divided by T."""

    logits: Array
    below: Array


class LogitPair(NamedTuple):
    """Two distributions p and q, `difference` (z_p - z_q) / T, and `shift`, that of the largest.

    Derivatives of first order flow through the `logits` of both sides alone.
    """

    p: Side
    q: Side
    difference: Array
    shift: Array  # [..., 1]

    def swapped(self) -> "LogitPair":
        return LogitPair(self.q, self.p, -self.difference, -self.shift)


class _Comparison(NamedTuple):
    p: Array
    q: Array
    ratio: Array  # log(p / q)
    gap: Array  # p - q
    shift: Array  # [..., 1]: log sum exp z_p - log sum exp z_q


def logit_pair(student: ArrayLike, teacher: ArrayLike, temperature: Number) -> LogitPair:
    """Check student, teacher and temperature, and return p of the teacher, q of the student."""
    check_pair(student, teacher)
    check_positive("temperature", temperature)
    s, t = (jnp.asarray(z, jnp.float32) for z in (student, teacher))
    # A class may be ruled out by -inf on both sides: it differs by 0.
    return pair(t, s, jnp.where(s == t, 0.0, t - s), temperature)


def pair(p: Array, q: Array, difference: Array, temperature: Number = 1.0) -> LogitPair:
    """Return two distributions by float32 logits and the difference of these, all at T = 1."""
    scale = 1 / jnp.asarray(temperature, jnp.float32)
    top_p, top_q = (jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True)) for z in (p, q))
    return LogitPair(
        Side(p * scale, (p - top_p) * scale),
        Side(q * scale, (q - top_q) * scale),
        difference * scale,
        (top_p - top_q) * scale,
    )


def _beyond_linear(r: Array) -> Array:
    """Return e^r - 1 - r for |r| <= 1/4, to float32's precision."""
    series = 1 / 5040 * r + 1 / 720
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2):
        series = series * r + factor
    return series * r * r


def _series(p: Array, q: Array, r: Array) -> tuple[Array, Array]:
    """Return whether r = log(p / q) is small, and r with 0 where it is not.

    Logits of 1e20 on one side round r to 0; comparing p with q detects that it is not small.
    """
    small = (jnp.abs(r) < _SERIES) & (jnp.abs(p - q) <= q / 2)
    return small, jnp.where(small, r, 0.0)


def kl_summand(p: Array, q: Array, r: Array, gap: Array) -> Array:
    """Return p r - (p - q) >= 0 of every class, r = log(p / q); p = 0 leaves q."""
    small, safe = _series(p, q, r)
    near = q * (safe * safe - _beyond_linear(safe) * (1 - safe))
    return jnp.where(small, near, jnp.where(p > 0, p * r, 0.0) - gap)


def _compare(both: LogitPair) -> _Comparison:
    (p_exp, q_exp) = (jnp.exp(side.below) for side in (both.p, both.q))
    p_total, q_total = (jnp.sum(x, axis=-1, keepdims=True) for x in (p_exp, q_exp))
    p, q = p_exp * (1 / p_total), q_exp * (1 / q_total)
    rest = jnp.log(p_total) - jnp.log(q_total)
    # Two ways to z_p - z_q less that of the largest logits, of which each rounds by a part of what
    # it subtracts: sides of very different size need the second, near ones the first.
    first = jnp.abs(both.difference) + jnp.abs(both.shift)
    second = jnp.abs(both.p.below) + jnp.abs(both.q.below)
    apart = jnp.where(first < second, both.difference - both.shift, both.p.below - both.q.below)
    ratio = apart - rest
    small, safe = _series(p, q, ratio)
    gap = jnp.where(small, q * (safe + _beyond_linear(safe)), p - q)
    # Probabilities sum to 1, so what p - q sums to is the rounding error of `rest`.
    error = jnp.sum(gap, axis=-1, keepdims=True)
    return _Comparison(p, q, ratio - error, gap - p * error, both.shift + rest + error)


def shift_of(both: LogitPair) -> Array:
    """Return log sum exp z_p - log sum exp z_q of nearly equal logits, without cancellation."""
    return _compare(both).shift[..., 0]


def _along(tangents: LogitPair, in_p: Array, in_q: Array) -> Array:
    """Return the derivative along the tangents of both sides' logits, where they have one."""
    sides = ((in_p, tangents.p.logits), (in_q, tangents.q.logits))
    parts = [gradient * z for gradient, z in sides if not isinstance(z, SymbolicZero)]
    return jnp.sum(sum(parts, jnp.zeros_like(in_p)), axis=-1)


def _centred(p: Array, values: Array) -> Array:
    """Return the gradient in the logits of sum p values, `values` held constant."""
    return p * (values - jnp.sum(p * values, axis=-1, keepdims=True))


@jax.custom_jvp
def kl(both: LogitPair) -> Array:
    """Return KL(p || q) in nats, never negative."""
    return jnp.maximum(jnp.sum(kl_summand(*_compare(both)[:4]), axis=-1), 0.0)


@functools.partial(kl.defjvp, symbolic_zeros=True)
def _(primals: tuple[LogitPair], tangents: tuple[LogitPair]) -> tuple[Array, Array]:
    p, q, ratio, gap, _ = _compare(*primals)
    value = jnp.maximum(jnp.sum(kl_summand(p, q, ratio, gap), axis=-1), 0.0)
    in_p = jnp.where(p > 0, p * (ratio - value[..., None]), 0.0)
    return value, _along(*tangents, in_p, -gap)


@jax.custom_jvp
def kl_both_ways(both: LogitPair, weight: Array, swapped_weight: Array) -> Array:
    """Return a KL(p || q) + b KL(q || p), never negative, a and b of each example."""
    return _both_ways(_compare(both), weight, swapped_weight)[0]


def _both_ways(compared: _Comparison, a: Array, b: Array) -> tuple[Array, Array, Array]:
    p, q, ratio, gap, _ = compared
    small, safe = _series(p, q, ratio)
    back = jnp.where(small, q * _beyond_linear(safe), gap - jnp.where(q > 0, q * ratio, 0.0))
    forward = jnp.sum(kl_summand(p, q, ratio, gap), axis=-1)
    forward, back = (jnp.maximum(x, 0.0) for x in (forward, jnp.sum(back, axis=-1)))
    return a * forward + b * back, forward, back


@kl_both_ways.defjvp
def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    both, a, b = primals
    compared = _compare(both)
    p, q, ratio, gap, _ = compared
    value, forward, back = _both_ways(compared, a, b)
    a, b = a[..., None], b[..., None]
    in_p = a * jnp.where(p > 0, p * (ratio - forward[..., None]), 0.0) + b * gap
    in_q = -a * gap - b * jnp.where(q > 0, q * (ratio + back[..., None]), 0.0)
    return value, _along(tangents[0], in_p, in_q) + forward * tangents[1] + back * tangents[2]


@jax.custom_jvp
def jensen_shannon(both: LogitPair, weight: Array) -> Array:
    """Return w KL(p || m) + (1 - w) KL(q || m), m = w p + (1 - w) q, never negative."""
    return _to_mixture(_compare(both), weight)[0]


def _to_mixture(both: _Comparison, weight: Array) -> tuple[Array, ...]:
    """Return the divergence, those of p and q from the mixture m, and log(p / m), log(q / m)."""
    p, q, ratio, gap, _ = both
    # From the log ratio alone, by expm1 of a number below 0, which never overflows. `where`, not
    # abs and min: their subgradients at equal probabilities would be wrong.
    p_above = ratio >= 0
    share = jnp.where(p_above, 1 - weight, weight)
    above = -jnp.log1p(share * jnp.expm1(jnp.where(p_above, -ratio, ratio)))
    p_ratio = jnp.where(p_above, above, ratio + above)
    q_ratio = jnp.where(p_above, above - ratio, above)
    mixture = weight * p + (1 - weight) * q
    of_p = jnp.sum(kl_summand(p, mixture, p_ratio, (1 - weight) * gap), axis=-1)
    of_q = jnp.sum(kl_summand(q, mixture, q_ratio, -weight * gap), axis=-1)
    return weight * of_p + (1 - weight) * of_q, of_p, of_q, p_ratio, q_ratio


@jensen_shannon.defjvp
def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    both, weight = _compare(primals[0]), primals[1]
    value, of_p, of_q, p_ratio, q_ratio = _to_mixture(both, weight)
    in_p = weight * _centred(both.p, jnp.where(both.p > 0, p_ratio, 0.0))
    in_q = (1 - weight) * _centred(both.q, jnp.where(both.q > 0, q_ratio, 0.0))
    return value, _along(tangents[0], in_p, in_q) + (of_p - of_q) * tangents[1]


@jax.custom_jvp
def kl_to_mixture(both: LogitPair, weight: Array) -> Array:
    """Return KL(p || m), m = w p + (1 - w) q, never negative."""
    return _to_mixture(_compare(both), weight)[1]


@kl_to_mixture.defjvp
def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    both, weight = _compare(primals[0]), primals[1]
    _, value, _, p_ratio, _ = _to_mixture(both, weight)
    excess = jnp.expm1(p_ratio)  # p / m - 1
    in_p = _centred(both.p, jnp.where(both.p > 0, p_ratio, 0.0) - weight * excess)
    in_weight = -jnp.sum((1 + excess) * both.gap, axis=-1)
    along = _along(tangents[0], in_p, (weight - 1) * _centred(both.q, excess))
    return value, along + in_weight * tangents[1]


@jax.custom_jvp
def total_variation(both: LogitPair) -> Array:
    """Return 1/2 sum |p - q|; a class on which both agree has gradient 0."""
    return 0.5 * jnp.sum(jnp.abs(_compare(both).gap), axis=-1)


@functools.partial(total_variation.defjvp, symbolic_zeros=True)
def _(primals: tuple[LogitPair], tangents: tuple[LogitPair]) -> tuple[Array, Array]:
    both = _compare(*primals)
    value = 0.5 * jnp.sum(jnp.abs(both.gap), axis=-1)
    agree = jnp.abs(both.ratio) <= _TIE * value[..., None] + _LEFT
    sign = jnp.where(agree, 0.0, 0.5 * jnp.sign(both.ratio))
    return value, _along(*tangents, _centred(both.p, sign), -_centred(both.q, sign))
