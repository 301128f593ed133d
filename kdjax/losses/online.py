"""Online distillation among peers: KDCL's targets and SwitOKD's switch.

Targets made of several networks' logits are detached. A UserError is raised for shapes that
disagree, labels that are not integers and temperatures <= 0.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from kdjax.errors import UserError
from kdjax.losses._checks import check_labels, check_mask, check_pair
from kdjax.losses._log_space import known_labels, log_probabilities, pick
from kdjax.losses._types import Labels, Logits, Mask, Number, PerExample, Scalar
from kdjax.losses.divergence import cross_entropy, forward_kl, total_variation
from kdjax.types import Array


def _detached_networks(own_logits: ArrayLike, all_logits: ArrayLike, labels: ArrayLike) -> Array:
    if jnp.ndim(all_logits) < 1 or jnp.shape(all_logits)[1:] != jnp.shape(own_logits):
        raise UserError(
            f"all_logits: shape {jnp.shape(all_logits)} must be [networks, *batch, classes] for "
            f"own_logits of shape {jnp.shape(own_logits)}"
        )
    check_labels(own_logits, labels)
    return jax.lax.stop_gradient(jnp.asarray(all_logits, jnp.float32))


def minimum_logit_kl(
    own_logits: Logits,
    all_logits: Float[ArrayLike, "networks *batch classes"],
    labels: Labels,
    *,
    temperature: Number = 2.0,
) -> PerExample:
    """KL(target || own) with KDCL's minimum-logit target z*_c = min_k (z_kc - z_ky).

    Each class takes the smallest logit, relative to the label y, of all networks, so no network is
    more confident of the label than the target. The target is detached.

    Returns:
        [*batch], nats; NaN where a label lies outside [0, classes).

    Source: Guo et al. 2020, "Online Knowledge Distillation via Collaborative Learning", MinLogit.

    >>> peers = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    >>> print(minimum_logit_kl(peers[0], peers, jnp.array(0)) > 0.0)
    False
    """
    networks = _detached_networks(own_logits, all_logits, labels)
    known, labels = known_labels(labels, networks.shape[-1])
    relative = [z - pick(z, labels)[..., None] for z in networks]
    target = functools.reduce(jnp.minimum, relative)  # a reduction over the first axis is slow
    return jnp.where(known, forward_kl(own_logits, target, temperature=temperature), jnp.nan)


def least_cross_entropy_kl(
    own_logits: Logits,
    all_logits: Float[ArrayLike, "networks *batch classes"],
    labels: Labels,
    *,
    temperature: Number = 2.0,
) -> PerExample:
    """KL(target || own); KDCL's naive target is, per example, the network with the least CE.

    The target is detached; the loss is 0 where the own network has the least cross-entropy.

    Returns:
        [*batch], nats.

    Source: Guo et al. 2020 (KDCL-Naive); choosing per example, not per batch, is our reading.

    >>> peers = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    >>> print(least_cross_entropy_kl(peers[0], peers, jnp.array(0)))
    0.0
    """
    networks = _detached_networks(own_logits, all_logits, labels)
    errors = jax.vmap(cross_entropy, in_axes=(0, None))(networks, labels)
    best = jnp.argmin(errors, axis=0)[None, ..., None]
    target = jnp.take_along_axis(networks, best, axis=0)[0]
    return forward_kl(own_logits, target, temperature=temperature)


class SwitchSignal(NamedTuple):
    """Batch means from which SwitOKD decides to pause the teacher; detached scalars.

    `gap` mean ||p_s - p_t||_1; `threshold` delta; `student_error` and `teacher_error` the mean L1
    distances to the one-hot label; `expert`: the teacher is paused on this batch.
    """

    gap: Scalar
    threshold: Scalar
    student_error: Scalar
    teacher_error: Scalar
    expert: Bool[Array, ""]


def switch_signal(
    student_logits: Logits, teacher_logits: Logits, labels: Labels, *, mask: Mask = None
) -> SwitchSignal:
    """SwitOKD's switch: decide whether the teacher is too far ahead to continue training.

    With G = mean ||p_s - p_t||_1, a and b the mean L1 distances of student and teacher to the
    one-hot label (T = 1): delta = a - exp(-b / (a + b)) b, and `expert` iff G > delta and b < a.
    It couples the batch: pass the gathered logits of all devices.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        labels: class indices.
        mask: 1 for examples, 0 for padding; None without padding.

    Returns:
        SwitchSignal of scalars, L1 distances between 0 and 2.

    Source: Qian et al. 2022, "Switchable Online Knowledge Distillation" (arXiv 2209.04996).

    >>> student, teacher = jnp.array([[0.0, 0.4, -9.0]]), jnp.array([[0.0, -9.0, 0.0]])
    >>> print(switch_signal(student, teacher, jnp.array([0])).expert)
    True
    """
    check_pair(student_logits, teacher_logits)
    check_labels(student_logits, labels)
    check_mask("mask", mask, jnp.shape(labels))
    counted = jnp.ones(jnp.shape(labels), bool) if mask is None else jnp.asarray(mask) > 0

    def mean(per_example: Array) -> Array:
        count = jnp.maximum(jnp.sum(counted), 1)  # an empty batch has gap 0, not NaN
        total = jnp.sum(jnp.where(counted, per_example, 0.0))
        return jax.lax.stop_gradient(total / count)

    def label_distance(logits: ArrayLike) -> Array:
        # ||p - onehot||_1 = 2 (1 - p_y), without cancellation where p_y is nearly 1
        return -2 * jnp.expm1(pick(log_probabilities(logits), labels))

    gap = mean(2 * total_variation(student_logits, teacher_logits))
    a, b = mean(label_distance(student_logits)), mean(label_distance(teacher_logits))
    share = b / jnp.where(a + b > 0, a + b, 1.0)
    threshold = a - jnp.exp(-share) * b
    return SwitchSignal(gap, threshold, a, b, (gap > threshold) & (b < a))
