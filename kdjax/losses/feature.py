"""Losses on features: what two layers say of the same image.

Features are [batch, ...] with one batch axis; the two layers must have one shape. Where widths
differ, the student carries a projector (`models.with_adapter`): losses own no parameters.
"""

import jax.numpy as jnp
from jaxtyping import Float

from kdjax.types import Array, UserError


def feature_mse(
    student_features: Float[Array, "batch ..."], teacher_features: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Mean squared difference of two layers: mean_j (s_j - t_j)^2 over all but the batch axis.

    Returns:
        [batch] float32.

    Raises:
        UserError: the shapes differ, or there is no axis beside the batch.

    Source: FitNets, Romero et al. 2015 (arXiv 1412.6550), equation 3, without its factor 1/2.

    >>> import jax.numpy as jnp
    >>> feature_mse(jnp.zeros((2, 4)), jnp.ones((2, 4)))
    Array([1., 1.], dtype=float32)
    """
    shapes = jnp.shape(student_features), jnp.shape(teacher_features)
    if shapes[0] != shapes[1] or len(shapes[0]) < 2:
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must have one shape "
            "[batch, ...]"
        )
    gap = student_features.astype(jnp.float32) - teacher_features.astype(jnp.float32)
    return jnp.mean(gap.reshape(gap.shape[0], -1) ** 2, axis=-1)
