"""Maps of images and their combinations, with Lipschitz constants on images of a given shape."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.models.layers.layers import global_average, halve
from kdjax.types import Array

Shape = tuple[int, ...]  # of an image, or (width,)


class Map(NamedTuple):
    """`apply` to a batch [batch, *shape]; `constant(shape)` bounds its slope; `matrix` if dense."""

    apply: Callable[[Array], Array]
    constant: Callable[[Shape], float]
    matrix: np.ndarray | None = None


NamedMaps = list[tuple[str, Map]]  # layers of a network, each a map from the previous one


def out_shape(part: Map, shape: Shape) -> Shape:
    """Return the shape of a map's output."""
    return jax.eval_shape(part.apply, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


def nonexpansive(apply: Callable[[Array], Array]) -> Map:
    """Return a map with constant 1, such as a permutation, a padding, a ReLU or a selection."""
    return Map(apply, lambda shape: 1.0)


IDENTITY = nonexpansive(lambda x: x)
RELU = nonexpansive(jax.nn.relu)
# The maximum of a window changes at most as much as the window, and these windows do not overlap.
HALVE = nonexpansive(halve)
# The mean of n numbers changes at most 1 / sqrt(n) as much as they do.
GLOBAL_AVERAGE = Map(global_average, lambda shape: float((shape[0] * shape[1]) ** -0.5))


def compose(*maps: Map) -> Map:
    """Apply maps one after the other: the product of the constants."""

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


def add(shortcut: Map, branch: Map) -> Map:
    """Add two maps of one input: the sum of the constants."""
    return Map(
        lambda x: shortcut.apply(x) + branch.apply(x),
        lambda shape: shortcut.constant(shape) + branch.constant(shape),
    )


def concat(first: Map, second: Map) -> Map:
    """Concatenate the channels of two maps of one input: the root of the sum of squares."""
    return Map(
        lambda x: jnp.concatenate([first.apply(x), second.apply(x)], axis=-1),
        lambda shape: math.hypot(first.constant(shape), second.constant(shape)),
    )


def split_channels(first: Map, second: Map) -> Map:
    """Apply one map to each half of the channels: the larger constant."""

    def apply(x: Array) -> Array:
        half = x.shape[-1] // 2
        parts = first.apply(x[..., :half]), second.apply(x[..., half:])
        return jnp.concatenate(parts, axis=-1)

    def constant(shape: Shape) -> float:
        half = shape[-1] // 2
        sizes = (*shape[:-1], half), (*shape[:-1], shape[-1] - half)
        return max(first.constant(sizes[0]), second.constant(sizes[1]))

    return Map(apply, constant)


def max_pool(window: int, stride: int) -> Map:
    """Return the maximum of each window of an image padded by window // 2.

    A window's maximum changes at most as much as the window; a pixel lies in at most
    ceil(window / stride)^2 windows, so their squared changes sum to at most that many times the
    image's.
    """

    def apply(x: Array) -> Array:
        pad = (window // 2, window // 2)
        sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, ((0, 0), pad, pad, (0, 0)))

    return Map(apply, lambda shape: float(-(-window // stride)))
