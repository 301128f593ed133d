"""Hinton's loss on standardized logits, and MLLD's at several temperatures and levels."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.losses._checks import check_pair, check_positive
from kdjax.losses._log_space import log_probabilities
from kdjax.losses._types import Number
from kdjax.losses._vectors import deviation, gram
from kdjax.losses.divergence import forward_kl
from kdjax.types import Array

_DEVIATION_EPSILON = 1e-7  # as in the reference implementation
_STRONG, _WEAK = (3.0, 5.0), (2.0, 6.0)  # MLLD's temperatures besides T
_LOGITS = "[batch, classes]"


def standardized_kl(
    student_logits: Float[ArrayLike, "*batch classes"],
    teacher_logits: Float[ArrayLike, "*batch classes"],
    *,
    temperature: Number = 2.0,
) -> Float[Array, "*batch"]:
    """KL(teacher || student) of standardized logits (z - mean) / (deviation + 1e-7), over T.

    The deviation has classes - 1 in its denominator. Constant logits become 0.

    Returns:
        [*batch], nats.

    Raises:
        UserError: shapes that differ, temperature <= 0.

    At constant student logits, as of a head of zeros, the gradient is about 1e6: initialise the
    head differently, or set `clip_norm`.

    Source: Sun et al. 2024 (arXiv 2403.01427), without T^2.

    >>> z = jnp.array([1.0, 2.0, 4.0])
    >>> print(abs(standardized_kl(5 * z + 3, z)) < 1e-6)
    True
    """
    check_pair(student_logits, teacher_logits)
    student, teacher = (_standardized(z) for z in (student_logits, teacher_logits))
    return forward_kl(student, teacher, temperature=temperature)


def _standardized(logits: ArrayLike) -> Array:
    z = jnp.asarray(logits, jnp.float32)
    centered = z - jnp.mean(z, axis=-1, keepdims=True)
    return centered / (deviation(z)[..., None] + _DEVIATION_EPSILON)


def multi_level_kl(
    student_logits: Float[ArrayLike, "batch classes"],
    teacher_logits: Float[ArrayLike, "batch classes"],
    student_view: Float[ArrayLike, "batch classes"],
    teacher_view: Float[ArrayLike, "batch classes"],
    *,
    temperature: Number = 4.0,
) -> Float[Array, ""]:
    """MLLD: instances, classes and batches compared at the temperatures T, 3, 5, 2 and 6.

    K_T is T^2 times the batch mean of KL(teacher || student), P_T are the probabilities [batch,
    classes]. a is the share of images with at most the median confidence, b the share of classes
    with at most the median sum of probabilities, both of the teacher at temperature 1. The loss is

        a sum_T K_T + sum_{T, 3, 5} K_T(view) + sum_{2, 6} K_T
        + sum_T (b |P_t'P_t - P_s'P_s|^2 / classes + a |P_t P_t' - P_s P_s'|^2 / batch)

    Args:
        student_logits: of the first, weakly augmented view.
        teacher_logits: of the first view.
        student_view: logits of the second, strongly augmented view.
        teacher_view: of the second view.
        temperature: T > 0.

    Returns:
        []; couples the batch, and includes T^2 because the temperatures differ.

    Raises:
        UserError: shapes that differ or are not [batch, classes], temperature <= 0.

    Source: Jin, Wang, Lin 2023 (CVPR); shares, scales and the first view at temperatures 2 and 6
    as in the published code.

    >>> z = jnp.array([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]])
    >>> print(multi_level_kl(z, z, z, z))
    0.0
    """
    check_pair(student_logits, teacher_logits, axes=_LOGITS)
    check_pair(student_view, teacher_view, axes=_LOGITS)
    check_pair(student_logits, student_view, "logits of the two views", axes=_LOGITS)
    check_positive("temperature", temperature)
    sure = jax.lax.stop_gradient(jax.nn.softmax(jnp.asarray(teacher_logits, jnp.float32)))
    images, classes = _low_share(jnp.max(sure, axis=1)), _low_share(jnp.sum(sure, axis=0))
    own, fixed = (temperature, *_STRONG), _WEAK
    first = sum((_scaled_kl(student_logits, teacher_logits, t) for t in own), jnp.float32(0))
    again = sum((_scaled_kl(student_logits, teacher_logits, t) for t in fixed), jnp.float32(0))
    view = sum((_scaled_kl(student_view, teacher_view, t) for t in own), jnp.float32(0))
    total = images * (first + again) + view + again
    for t in (*own, *fixed):
        s, p = (jnp.exp(log_probabilities(z, t)) for z in (student_logits, teacher_logits))
        total += classes * _gram_gap(s.T, p.T) + images * _gram_gap(s, p)
    return total


def _scaled_kl(student: ArrayLike, teacher: ArrayLike, temperature: Number) -> Array:
    """Return T^2 times the batch mean of KL(teacher || student)."""
    return temperature**2 * jnp.mean(forward_kl(student, teacher, temperature=temperature))


def _low_share(values: Array) -> Array:
    """Return the share of values that are at most the median."""
    return jnp.mean((values <= jnp.median(values)).astype(jnp.float32))


def _gram_gap(x: Array, y: Array) -> Array:
    """Return |X X' - Y Y'|^2 / n of matrices [n, width]."""
    return jnp.sum((gram(x) - gram(y)) ** 2) / len(x)
