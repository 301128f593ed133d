"""DKD, which splits Hinton's loss into two parts, and DIST, which correlates probabilities.

Both compare softmax(z / T) of student and teacher in float32, without T^2; nothing is detached.
"""

import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.losses._checks import check_labels, check_not_negative, check_pair, check_positive
from kdjax.losses._comparison import kl, pair, shift_of
from kdjax.losses._log_space import known_labels, pick
from kdjax.losses._types import Labels, Logits, Mask, Number, PerExample, Scalar
from kdjax.losses._vectors import norm
from kdjax.types import Array

_EPSILON = 1e-8  # in DIST's denominator, as in the reference implementation


def decoupled_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    alpha: Number = 1.0,
    beta: Number = 8.0,
    temperature: Number = 4.0,
) -> PerExample:
    """Decoupled KL: alpha KL(b_t || b_s) + beta KL(q_t || q_s), teacher to student in both.

    b = (p_y, 1 - p_y) is the label against the rest (TCKD); q are the other classes, renormalised
    (NCKD). With alpha = 1 and beta = 1 - p_y of the teacher, the sum is `forward_kl`. NCKD of two
    classes is 0.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        labels: y, class indices.
        alpha: weight of TCKD, >= 0.
        beta: weight of NCKD, >= 0.
        temperature: T > 0.

    Returns:
        [*batch], nats; NaN where a label lies outside [0, classes).

    Raises:
        UserError: shapes that disagree, fewer than two classes, labels that are not integers,
            a weight < 0, temperature <= 0.

    Source: Zhao et al. 2022 (arXiv 2203.08679), equations 6 and 7, without T^2.

    >>> student, teacher = jnp.array([0.0, 0.0, 500.0]), jnp.array([0.0, 0.0, 0.0])
    >>> loss = decoupled_kl(student, teacher, jnp.array(2), beta=0.0, temperature=1.0)
    >>> print(loss.round())  # 2/3 of the teacher's mass is where the student has e^-499.3
    332.0
    """
    check_pair(student_logits, teacher_logits)
    check_positive("temperature", temperature)
    check_labels(student_logits, labels)
    check_not_negative("alpha", alpha)
    check_not_negative("beta", beta)
    s, t = (jnp.asarray(z, jnp.float32) for z in (student_logits, teacher_logits))
    if s.shape[-1] < 2:
        raise UserError(f"logits: {s.shape} must have at least two classes")
    known, labels = known_labels(labels, s.shape[-1])
    is_label = jnp.arange(s.shape[-1]) == labels[..., None]
    # The sums omit the label. The usual way, to subtract a large constant from its logit, loses all
    # digits of the other classes; and 1 - p_y would be 0 where p_y rounds to 1.
    others_s, others_t = (jnp.where(is_label, -jnp.inf, z) for z in (s, t))
    between = jnp.where(is_label | (s == t), 0.0, t - s)
    others = pair(others_t, others_s, between, temperature)
    own_s, own_t = (pick(z, labels) for z in (s, t))
    log_odds = [
        own / temperature - jax.nn.logsumexp(side.logits, axis=-1)
        for own, side in ((own_t, others.p), (own_s, others.q))
    ]
    log_odds_difference = (own_t - own_s) / temperature - shift_of(others)
    target = kl(
        pair(*(jnp.stack([x, jnp.zeros_like(x)], -1) for x in (*log_odds, log_odds_difference)))
    )
    return jnp.where(known, alpha * target + beta * kl(others), jnp.nan)


def correlation(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    beta: Number = 1.0,
    gamma: Number = 1.0,
    temperature: Number = 1.0,
    mask: Mask = None,
) -> Scalar:
    """DIST: beta (1 - mean_i r(p_s[i], p_t[i])) + gamma (1 - mean_c r(p_s[:, c], p_t[:, c])).

    r is Pearson's correlation, with 1e-8 in its denominator: over the classes of an example, and
    over the examples for a class. It couples the batch: pass the gathered logits of all devices.
    For a batch of one example the second part is exactly 1, without gradient. Where a student's
    probabilities are constant, as with a head of zeros, only the 1e-8 bounds the gradient (its norm
    is about 1e6, as published): initialise the head differently, or set `clip_norm`.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        beta: weight of the correlations within examples, >= 0.
        gamma: weight of the correlations within classes, >= 0.
        temperature: T > 0.
        mask: [*batch], 1 for examples that count; None: all.

    Returns:
        [], between 0 and 2 (beta + gamma); dimensionless; NaN without an example that counts.

    Raises:
        UserError: shapes that differ, a weight < 0, temperature <= 0.

    Source: Huang et al. 2022 (arXiv 2205.10536), equations 6 to 10, without T^2.

    >>> z = jnp.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> print(correlation(z, z).round(3), correlation(-z, z, gamma=0.0) > 1)
    0.0 True
    """
    check_pair(student_logits, teacher_logits)
    check_not_negative("beta", beta)
    check_not_negative("gamma", gamma)
    check_positive("temperature", temperature)
    s, t = (
        jax.nn.softmax(jnp.asarray(z, jnp.float32) / temperature, axis=-1)
        for z in (student_logits, teacher_logits)
    )
    s, t = (p.reshape(-1, p.shape[-1]) for p in (s, t))
    counted = jnp.ones(len(s)) if mask is None else jnp.asarray(mask, jnp.float32).reshape(-1)
    within = _mean(_pearson(s, t, jnp.ones(s.shape[-1])), counted)
    between = jnp.mean(_pearson(s.T, t.T, counted))
    return beta * (1 - within) + gamma * (1 - between)


def _mean(x: Array, counted: Array) -> Array:
    """Return the mean of the entries of the last axis whose `counted` is 1."""
    return jnp.sum(counted * x, axis=-1) / jnp.sum(counted)


def _pearson(x: Array, y: Array, counted: Array) -> Array:
    """Return the correlation of each row of x with the same row of y; 0 for a constant row."""
    x, y = (counted * (a - _mean(a, counted)[..., None]) for a in (x, y))
    return jnp.sum(x * y, axis=-1) / (norm(x) * norm(y) + _EPSILON)
