"""Feature maps [batch, height, width, channel] that losses resize and compare, in float32."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.types import Array


def map_pair(student: ArrayLike, teacher: ArrayLike, *, channels: bool = False) -> Any:
    """Check two maps, and return both in float32; `channels`: their channels must be equal, too.

    Raises:
        UserError: arrays that are no maps, different batch sizes, or different channels.
    """
    shapes = jnp.shape(student), jnp.shape(teacher)
    fit = {len(shape) for shape in shapes} == {4} and shapes[0][0] == shapes[1][0]
    if not fit or (channels and shapes[0][-1] != shapes[1][-1]):
        raise UserError(
            f"features: student {shapes[0]} and teacher {shapes[1]} must be [batch, height, width, "
            f"channel] with equal batch sizes{' and channels' if channels else ''}"
        )
    return jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.float32)


def match(x: Array, y: Array) -> tuple[Array, Array]:
    """Average the taller of two maps down to the other's height and width."""
    if x.shape[1] < y.shape[1]:
        return x, pool(y, x.shape[1:3])
    return pool(x, y.shape[1:3]), y


def pool(maps: Array, size: tuple[int, ...]) -> Array:
    """Average to `size` windows, which overlap where the size of the map is no multiple of it."""
    if maps.shape[1:3] == size:
        return maps
    batch, height, width, channels = maps.shape
    if height % size[0] == 0 and width % size[1] == 0:
        shape = (batch, size[0], height // size[0], size[1], width // size[1], channels)
        return jnp.mean(maps.reshape(shape), axis=(2, 4))
    down, across = _windows(size[0], height), _windows(size[1], width)
    return jnp.einsum("ih,bhwc,jw->bijc", down, maps, across, precision=jax.lax.Precision.HIGHEST)


def _windows(cells: int, size: int) -> Array:
    """Return the averaging matrix: window i is floor(i size/cells) .. ceil((i+1) size/cells)."""
    i, position = jnp.arange(cells)[:, None], jnp.arange(size)
    inside = (position >= i * size // cells) & (position < -(-(i + 1) * size // cells))
    return inside / jnp.sum(inside, axis=1, keepdims=True)


def channel_rows(maps: Array) -> Array:
    """Return [batch, channel, positions]."""
    return jnp.swapaxes(maps.reshape(maps.shape[0], -1, maps.shape[-1]), 1, 2)


def spatial_mean(features: ArrayLike) -> Array:
    """Average [batch, ..., channel] over all positions to [batch, channel], float32."""
    features = jnp.asarray(features, jnp.float32)
    return jnp.mean(features.reshape(features.shape[0], -1, features.shape[-1]), axis=1)
