"""Log-space arithmetic of the losses, in float32 for logits of any dtype."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.losses._types import Number
from kdjax.types import Array


def log_probabilities(logits: ArrayLike, temperature: Number = 1.0) -> Array:
    """Return log softmax(z / T) over the last axis, float32."""
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32) / temperature, axis=-1)


def expectation(log_p: Array, values: Array) -> Array:
    """Return sum_c p_c values_c; a class of probability 0 may hold an infinite or NaN value."""
    p = jnp.exp(log_p)
    # Masked before the product: 0 * inf would be NaN in the value and again in the gradient.
    return jnp.sum(p * jnp.where(p > 0, values, 0.0), axis=-1)


def known_labels(labels: ArrayLike, classes: int) -> tuple[Array, Array]:
    """Return whether each label lies in [0, classes), and the labels with 0 where it does not.

    A loss is computed with these labels and set to NaN afterwards: so a padded row, whose loss is
    masked, has no NaN gradient.
    """
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))  # bytes would wrap
    known = (labels >= 0) & (labels < classes)
    return known, jnp.where(known, labels, 0)


def pick(values: Array, labels: ArrayLike) -> Array:
    """Return values[..., labels]; NaN for a label outside [0, classes), also a negative one."""
    known, labels = known_labels(labels, values.shape[-1])
    picked = jnp.take_along_axis(values, labels[..., None], axis=-1, mode="clip")
    return jnp.where(known, picked[..., 0], jnp.nan)
