"""Divergences for language models, one number per token: skewed and adaptive KL.

Logits are [batch, positions, vocabulary]; other leading axes work, too. The generalized
Jensen-Shannon divergence is `jensen_shannon`.
"""

import jax
import jax.numpy as jnp

from kdjax.losses._checks import check_open_fraction
from kdjax.losses._comparison import LogitPair, kl_both_ways, kl_to_mixture, logit_pair
from kdjax.losses._types import Logits, Number, PerExample
from kdjax.losses._vectors import ratio
from kdjax.types import Array

_MASS = 0.5  # probability of the head, Wu et al. 2024
_ABOVE_ONE = 0x40000000  # the bits of 2, as float32


def skew_forward_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    alpha: Number = 0.1,
    temperature: Number = 1.0,
) -> PerExample:
    """KL(teacher || m), m = alpha p_t + (1 - alpha) p_s.

    Returns:
        [*batch], nats, at most -log alpha.

    Raises:
        UserError: shapes that differ, alpha outside (0, 1), temperature <= 0.

    Source: Ko et al. 2024 (arXiv 2402.03898), without T^2.

    >>> print(skew_forward_kl(jnp.array([0.0, 500.0]), jnp.array([500.0, 0.0])).round(2))
    2.3
    """
    return _kl_to_mixture(logit_pair(student_logits, teacher_logits, temperature), alpha)


def skew_reverse_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    alpha: Number = 0.1,
    temperature: Number = 1.0,
) -> PerExample:
    """KL(student || m), m = alpha p_s + (1 - alpha) p_t.

    Returns:
        [*batch], nats, at most -log alpha.

    Raises:
        UserError: shapes that differ, alpha outside (0, 1), temperature <= 0.

    Source: Ko et al. 2024 (arXiv 2402.03898), without T^2.

    >>> print(skew_reverse_kl(jnp.array([0.0, 500.0]), jnp.array([500.0, 0.0])).round(2))
    2.3
    """
    both = logit_pair(student_logits, teacher_logits, temperature)
    return _kl_to_mixture(both.swapped(), alpha)


def _kl_to_mixture(both: LogitPair, alpha: Number) -> Array:
    check_open_fraction("alpha", alpha)
    return kl_to_mixture(both, jnp.asarray(alpha, jnp.float32))


def adaptive_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    from_tail: bool = False,
    temperature: Number = 1.0,
) -> PerExample:
    """AKL: g KL(teacher || student) + (1 - g) KL(student || teacher), g the head's share.

    The head is the teacher's most probable words up to a mass of 1/2, at least one; g is its share
    of sum |p_t - p_s|, detached. Words of equal probability are all in the head or all in the tail.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        from_tail: define the tail as the least probable words up to a mass of 1/2, and the head as
            the rest.
        temperature: T > 0.

    Returns:
        [*batch], nats; 0 without gradient at equal probabilities.

    Raises:
        UserError: shapes that differ, temperature <= 0.

    Source: Wu et al. 2024 (arXiv 2404.02657), without T^2.

    >>> z = jnp.array([0.0, 1.0, 3.0])
    >>> print(adaptive_kl(z, z))
    0.0
    """
    both = logit_pair(student_logits, teacher_logits, temperature)
    p_t, p_s = (jax.nn.softmax(jax.lax.stop_gradient(z.logits)) for z in (both.p, both.q))
    gap = jnp.abs(p_t - p_s)
    head = p_t > _limit(p_t, from_tail=True) if from_tail else _head(p_t)
    total = jnp.sum(gap, axis=-1)
    head_share = ratio(jnp.sum(jnp.where(head, gap, 0.0), axis=-1), total)
    tail_share = ratio(jnp.sum(jnp.where(head, 0.0, gap), axis=-1), total)
    return kl_both_ways(both, head_share, tail_share)


def _head(p: Array) -> Array:
    """Return which words are the most probable ones up to a mass of 1/2, at least one."""
    best = jnp.argmax(p, axis=-1, keepdims=True) == jnp.arange(p.shape[-1])
    return best | (p >= _limit(p, from_tail=False))


def _limit(p: Array, *, from_tail: bool) -> Array:
    """Return the least probability of the head, or the greatest of the tail, [..., 1].

    Both end where their mass would exceed 1/2. Bisection over the bits of float32, which are in the
    order of the numbers, is exact and takes much less time than sorting a vocabulary.
    """

    def number(bits: Array) -> Array:
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2
        inside = p <= number(middle) if from_tail else p >= number(middle)
        is_small = jnp.sum(jnp.where(inside, p, 0.0), axis=-1, keepdims=True) <= _MASS
        upward = is_small if from_tail else ~is_small
        return jnp.where(upward, middle, low), jnp.where(upward, high, middle)

    low = jnp.zeros((*p.shape[:-1], 1), jnp.int32)
    high = jnp.full_like(low, _ABOVE_ONE)
    low, high = jax.lax.fori_loop(0, 31, halve, (low, high))
    return number(low if from_tail else high)
