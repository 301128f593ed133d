"""Divergences between two categorical distributions, and losses made of them.

Arguments are logits, student first, teacher second; `p = softmax(z / T)`. Every function returns
one float32 number per example: a sum over classes, in nats. It never averages over the batch and
never multiplies by T^2; the term that uses the loss does both. All is computed in float32. Values
and gradients are finite for T >= 0.05 and |logits| <= 1e4, in any dtype, and accurate where T is
high or both sides nearly agree. A class with a logit of -inf on both sides contributes nothing.
Nothing is detached unless a docstring says so. A UserError is raised for shapes that differ and for
a temperature that is not a finite number > 0.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import _comparison
from kdjax.losses._checks import (
    check_fraction,
    check_labels,
    check_not_negative,
    check_open_fraction,
    check_pair,
    check_positive,
)
from kdjax.losses._comparison import kl, kl_both_ways, logit_pair
from kdjax.losses._log_space import expectation, log_probabilities, pick
from kdjax.losses._types import Labels, Logits, Number, PerExample


def cross_entropy(logits: Logits, labels: Labels, *, label_smoothing: Number = 0.0) -> PerExample:
    """Cross-entropy of a label: -(1 - e) log p_y - e/classes sum_c log p_c, e the smoothing.

    Returns:
        [*batch], nats; NaN where a label lies outside [0, classes).

    Raises:
        UserError: shapes that disagree, labels that are not integers, smoothing outside [0, 1).

    Source: smoothing after Szegedy et al. 2016 (arXiv 1512.00567), section 7.

    >>> logits = jnp.array([[0.0, 0.0], [0.0, 200.0]])
    >>> print(cross_entropy(logits, jnp.array([0, 0])))
    [  0.6931472 200.       ]
    """
    check_labels(logits, labels)
    check_fraction("label_smoothing", label_smoothing)
    logits = jnp.asarray(logits, jnp.float32)
    below = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    rest = jnp.log(jnp.sum(jnp.exp(below), axis=-1))
    hard = rest - pick(below, labels)
    if isinstance(label_smoothing, float | int) and label_smoothing == 0:
        return hard  # 0 * inf would be NaN where a class is ruled out by -inf
    return (1 - label_smoothing) * hard + label_smoothing * (rest - jnp.mean(below, axis=-1))


def entropy(logits: Logits, *, temperature: Number = 1.0) -> PerExample:
    """Shannon entropy H(p) = -sum_c p_c log p_c of p = softmax(z / T).

    Returns:
        [*batch], nats, between 0 and log(classes).

    >>> print(entropy(jnp.zeros((2, 4))))
    [1.3862944 1.3862944]
    >>> print(float(entropy(jnp.array([500.0, 0.0]))))
    0.0
    """
    check_positive("temperature", temperature)
    log_p = log_probabilities(logits, temperature)
    return expectation(log_p, -log_p)


def forward_kl(
    student_logits: Logits, teacher_logits: Logits, *, temperature: Number = 1.0
) -> PerExample:
    """KL(teacher || student) = sum_c p_t (log p_t - log p_s): the student covers the teacher.

    Returns:
        [*batch], nats. Its gradient in the student's logits is (p_s - p_t) / T.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2, without T^2.

    >>> student, teacher = jnp.zeros(2), jnp.array([500.0, 0.0])
    >>> print(float(forward_kl(student, teacher)))
    0.6931471824645996
    """
    return kl(logit_pair(student_logits, teacher_logits, temperature))


def soft_cross_entropy(
    student_logits: Logits, teacher_logits: Logits, *, temperature: Number = 1.0
) -> PerExample:
    """Cross-entropy with the teacher: -sum_c p_t log p_s = KL(teacher || student) + H(teacher).

    Returns:
        [*batch], nats. Its gradient in the student's logits is that of `forward_kl`.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2, without T^2.

    >>> print(float(soft_cross_entropy(jnp.zeros(2), jnp.zeros(2))))
    0.6931471824645996
    """
    check_pair(student_logits, teacher_logits)
    check_positive("temperature", temperature)
    log_q, log_p = (log_probabilities(z, temperature) for z in (student_logits, teacher_logits))
    return expectation(log_p, -log_q)


def hard_cross_entropy(
    student_logits: Logits, teacher_logits: Logits, *, label_smoothing: Number = 0.0
) -> PerExample:
    """Cross-entropy with the teacher's most probable class, `cross_entropy` at argmax_c z_t.

    The first class counts where several are equal. The teacher gets no gradient.

    Returns:
        [*batch], nats.

    Raises:
        UserError: shapes that differ, smoothing outside [0, 1).

    Source: Touvron et al. 2021 (arXiv 2012.12877), equation 3.

    >>> print(hard_cross_entropy(jnp.array([0.0, 200.0]), jnp.array([1.0, 0.0])))
    200.0
    """
    check_pair(student_logits, teacher_logits)
    labels = jnp.argmax(jnp.asarray(teacher_logits), axis=-1)
    return cross_entropy(student_logits, labels, label_smoothing=label_smoothing)


def reverse_kl(
    student_logits: Logits, teacher_logits: Logits, *, temperature: Number = 1.0
) -> PerExample:
    """KL(student || teacher) = sum_c p_s (log p_s - log p_t): the student seeks a mode.

    Returns:
        [*batch], nats. Its gradient in the student's logits is p_s (log p_s - log p_t - KL) / T.

    >>> student, teacher = jnp.array([500.0, 0.0]), jnp.zeros(2)
    >>> print(float(reverse_kl(student, teacher)))
    0.6931471824645996
    """
    return kl(logit_pair(student_logits, teacher_logits, temperature).swapped())


def jensen_shannon(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    temperature: Number = 1.0,
    weight: Number = 0.5,
) -> PerExample:
    """Jensen-Shannon: w KL(teacher || m) + (1 - w) KL(student || m), m = w p_t + (1 - w) p_s.

    It tends to 0 as w goes to 0 or 1, so a sweep over w also changes the size of the gradient.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        temperature: T > 0.
        weight: w in (0, 1), the teacher's share of the mixture.

    Returns:
        [*batch], nats, between 0 and the entropy of (w, 1 - w): log 2 at w = 1/2.

    Raises:
        UserError: also a weight outside (0, 1).

    Source: Lin 1991, "Divergence measures based on the Shannon entropy"; the weighted form for
    distillation in Agarwal et al. 2023 (arXiv 2306.13649).

    >>> student, teacher = jnp.array([500.0, 0.0]), jnp.array([0.0, 500.0])
    >>> print(float(jensen_shannon(student, teacher)))
    0.6931471824645996
    """
    check_open_fraction("weight", weight)
    both = logit_pair(student_logits, teacher_logits, temperature)
    return _comparison.jensen_shannon(both, jnp.asarray(weight, jnp.float32))


def total_variation(
    student_logits: Logits, teacher_logits: Logits, *, temperature: Number = 1.0
) -> PerExample:
    """Half the L1 distance of the probabilities: 1/2 sum_c |p_s - p_t|.

    Returns:
        [*batch], between 0 and 1. A class on which both agree exactly has gradient 0.

    >>> student, teacher = jnp.zeros(2), jnp.array([500.0, 0.0])
    >>> print(float(total_variation(student, teacher)))
    0.5
    """
    return _comparison.total_variation(logit_pair(student_logits, teacher_logits, temperature))


def weighted_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    forward_weight: Number = 1.0,
    reverse_weight: Number = 1.0,
    temperature: Number = 1.0,
) -> PerExample:
    """Both directions with fixed weights: d KL(teacher || student) + v KL(student || teacher).

    BD-KD's ablations: (1, 0) forward only, (0, 1) reverse only, (1, 1) both.

    Returns:
        [*batch], nats.

    Raises:
        UserError: also a negative weight.

    >>> student, teacher = jnp.zeros(2), jnp.array([500.0, 0.0])
    >>> print(float(weighted_kl(student, teacher, forward_weight=2.0, reverse_weight=0.0)))
    1.3862943649291992
    """
    check_not_negative("forward_weight", forward_weight)
    check_not_negative("reverse_weight", reverse_weight)
    both = logit_pair(student_logits, teacher_logits, temperature)
    return kl_both_ways(both, *(jnp.float32(w) for w in (forward_weight, reverse_weight)))


def balanced_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    *,
    temperature: Number = 1.0,
    emphasis: Number = 2.0,
    entropy_temperature: Number = 1.0,
) -> PerExample:
    """BD-KD's student side: d KL(teacher || student) + v KL(student || teacher).

    Per example (d, v) = (W, 1) if H(p_t) > H(p_s), (1, W) if H(p_s) > H(p_t), (1, 1) if equal.
    The loss flattens a student more confident than the teacher and sharpens a less confident one.
    The weights carry no gradient.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        temperature: T > 0 of both divergences.
        emphasis: W > 0; 1 weighs both divergences equally.
        entropy_temperature: the temperature > 0 at which the two entropies are compared.

    Returns:
        [*batch], nats.

    Raises:
        UserError: also an emphasis <= 0.

    Source: Amara et al. 2022 (arXiv 2212.12965), reconstructed from its abstract and an independent
    implementation of the weighting rule, not from the paper's equations.

    >>> surer, unsure = jnp.array([4.0, 0.0]), jnp.zeros(2)
    >>> extra = balanced_kl(surer, unsure) - weighted_kl(surer, unsure)
    >>> print(bool(jnp.isclose(extra, forward_kl(surer, unsure))))
    True
    """
    check_positive("emphasis", emphasis)
    check_positive("entropy_temperature", entropy_temperature)
    student_entropy = entropy(student_logits, temperature=entropy_temperature)
    teacher_entropy = entropy(teacher_logits, temperature=entropy_temperature)
    forward_weight = jnp.where(teacher_entropy > student_entropy, emphasis, 1.0)
    reverse_weight = jnp.where(student_entropy > teacher_entropy, emphasis, 1.0)
    both = logit_pair(student_logits, teacher_logits, temperature)
    return kl_both_ways(both, *jax.lax.stop_gradient((forward_weight, reverse_weight)))


def logit_mse(
    student_logits: Logits, teacher_logits: Logits, *, temperature: Number = 1.0
) -> PerExample:
    """Mean over classes of ((z_s - z_t) / T)^2; a regression has one logit, the value.

    Returns:
        [*batch], in units of the logits, squared.

    >>> print(logit_mse(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)), temperature=2.0))
    [0.25 2.25]
    """
    check_pair(student_logits, teacher_logits)
    check_positive("temperature", temperature)
    student, teacher = (jnp.asarray(z, jnp.float32) for z in (student_logits, teacher_logits))
    return jnp.mean(((student - teacher) / temperature) ** 2, axis=-1)
