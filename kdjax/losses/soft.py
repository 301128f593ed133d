"""Cross-entropy with a teacher, and squared error of the logits."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from kdjax.losses._checks import Number, check_pair, check_positive
from kdjax.losses._log_space import expectation, log_pair
from kdjax.types import Array


def soft_cross_entropy(
    student_logits: Float[ArrayLike, "*batch classes"],
    teacher_logits: Float[ArrayLike, "*batch classes"],
    *,
    temperature: Number = 1.0,
) -> Float[Array, "*batch"]:
    """Cross-entropy with the teacher: -sum_c p_t log p_s = KL(teacher || student) + H(teacher).

    Returns:
        [*batch], nats. Its gradient in the student's logits is that of `forward_kl`.

    Raises:
        UserError: shapes that differ, temperature <= 0.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2, without T^2.

    >>> print(float(soft_cross_entropy(jnp.zeros(2), jnp.zeros(2))))
    0.6931471824645996
    """
    log_s, log_t = log_pair(student_logits, teacher_logits, temperature)
    return expectation(log_t, -log_s)


def logit_mse(
    student_logits: Float[ArrayLike, "*batch classes"],
    teacher_logits: Float[ArrayLike, "*batch classes"],
    *,
    temperature: Number = 1.0,
) -> Float[Array, "*batch"]:
    """Mean over classes of ((z_s - z_t) / T)^2, also for regressions, whose one logit is the value.

    Returns:
        [*batch], in units of the logits, squared.

    Raises:
        UserError: shapes that differ, temperature <= 0.

    >>> print(logit_mse(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)), temperature=2.0))
    [0.25 2.25]
    """
    check_pair(student_logits, teacher_logits)
    check_positive("temperature", temperature)
    student, teacher = (jnp.asarray(z, jnp.float32) for z in (student_logits, teacher_logits))
    return jnp.mean(((student - teacher) / temperature) ** 2, axis=-1)
