"""Maps of images, put together: each knows its Lipschitz constant on images of a given shape."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.models.layers.layers import global_average, halve
from kdjax.types import Array

__all__ = [
    "GLOBAL_AVERAGE",
    "HALVE",
    "IDENTITY",
    "RELU",
    "Map",
    "Shape",
    "beside",
    "halves",
    "isometry",
    "max_pool",
    "out_shape",
    "plus",
    "row",
]

Shape = tuple[int, ...]  # of an image, or (width,)


class Map(NamedTuple):
    """`apply` to a batch [batch, *shape]; `constant(shape)` bounds its slope; `matrix` if dense."""

    apply: Callable[[Array], Array]
    constant: Callable[[Shape], float]
    matrix: np.ndarray | None = None


def out_shape(part: Map, shape: Shape) -> Shape:
    """Shape of what a map makes of an image."""
    return jax.eval_shape(part.apply, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


def isometry(apply: Callable[[Array], Array]) -> Map:
    """A map that moves no two inputs apart: a permutation, an embedding, a ReLU, a choice."""
    return Map(apply, lambda shape: 1.0)


IDENTITY = isometry(lambda x: x)
RELU = isometry(jax.nn.relu)
# The largest of a window moves at most as far as the window, and these windows share no pixel.
HALVE = isometry(halve)
# The mean of n numbers moves 1 / sqrt(n) as far as they do.
GLOBAL_AVERAGE = Map(global_average, lambda shape: float((shape[0] * shape[1]) ** -0.5))


def row(*maps: Map) -> Map:
    """One after the other: the product."""

    def apply(x: Array) -> Array:
        for part in maps:
            x = part.apply(x)
        return x

    def constant(shape: Shape) -> float:
        product = 1.0
        for part in maps:
            product *= part.constant(shape)
            shape = out_shape(part, shape)
        return product

    return Map(apply, constant)


def plus(shortcut: Map, branch: Map) -> Map:
    """The sum of two maps of one input: at most the sum of the constants."""
    return Map(
        lambda x: shortcut.apply(x) + branch.apply(x),
        lambda shape: shortcut.constant(shape) + branch.constant(shape),
    )


def beside(first: Map, second: Map) -> Map:
    """The channels of two maps of one input in a row: the root of the sum of squares."""
    return Map(
        lambda x: jnp.concatenate([first.apply(x), second.apply(x)], axis=-1),
        lambda shape: math.hypot(first.constant(shape), second.constant(shape)),
    )


def halves(first: Map, second: Map) -> Map:
    """Each half of the channels has its own map: the larger constant."""

    def apply(x: Array) -> Array:
        half = x.shape[-1] // 2
        parts = first.apply(x[..., :half]), second.apply(x[..., half:])
        return jnp.concatenate(parts, axis=-1)

    def constant(shape: Shape) -> float:
        half = shape[-1] // 2
        rest = shape[-1] - half
        return max(first.constant((*shape[:-1], half)), second.constant((*shape[:-1], rest)))

    return Map(apply, constant)


def max_pool(window: int, stride: int) -> Map:
    """Largest of each window, padded by window // 2.

    A window's maximum moves at most as far as the window does; a pixel lies in at most
    ceil(window / stride)^2 of them, so the squares add up to that many times the whole.
    """

    def apply(x: Array) -> Array:
        pad = (window // 2, window // 2)
        sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, ((0, 0), pad, pad, (0, 0)))

    return Map(apply, lambda shape: float(-(-window // stride)))
