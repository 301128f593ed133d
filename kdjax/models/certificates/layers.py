"""Maps of layers, from a network's variables."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax import bounds
from kdjax.models.certificates.maps import RELU, Map, NamedMaps, Shape, compose
from kdjax.types import Array, Variables

EXACT = 1_100_000  # entries of a matrix whose SVD takes under a second
WORK = 5e7  # pixels x channels^3, below which one matrix per frequency beats power iteration
ITERATIONS = 300  # of power iteration: its upper value is then at most 3 % above


def submodule_names(module: Variables, prefix: str) -> list[str]:
    """Return the names `prefix`0, `prefix`1, ... in the order of their numbers."""
    names = [n for n in module.params if n.startswith(prefix) and n[len(prefix) :].isdigit()]
    return sorted(names, key=lambda name: int(name[len(prefix) :]))


def submodules(module: Variables, prefix: str) -> list[Variables]:
    """Return the variables of the submodules `prefix`0, `prefix`1, ..."""
    names = submodule_names(module, prefix)
    return [Variables(module.params[name], module.stats.get(name, {})) for name in names]


def stage_layers(number: int, maps: Sequence[Map]) -> NamedMaps:
    """Return two layers of a stage that ends with a ReLU: before the ReLU and after it."""
    return [(f"stage{number}_pre", compose(*maps[:-1])), (f"stage{number}", RELU)]


def _scale_and_shift(module: Variables, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and summand of each channel in a batch norm's evaluation mode."""
    params, stats = module.params[name], module.stats[name]
    scale = np.float64(params["scale"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
    return scale, np.float64(params["bias"]) - scale * np.float64(stats["mean"])


def batch_norm(module: Variables, name: str) -> Map:
    """Return a batch norm without a convolution before it; its constant is the largest factor."""
    scale, shift = _scale_and_shift(module, name)
    return Map(
        lambda x: x * jnp.float32(scale) + jnp.float32(shift),
        lambda shape: float(np.abs(scale).max()),
    )


def convolution(module: Variables, conv: str, folded: str | None = None, *, stride: int = 1) -> Map:
    """Return a convolution with the batch norm `folded` into it; groups follow from the shapes."""
    kernel = np.asarray(module.params[conv]["kernel"], np.float64)
    shift = np.asarray(module.params[conv].get("bias", 0.0), np.float64)
    if folded is not None:
        scale, norm_shift = _scale_and_shift(module, folded)
        kernel, shift = kernel * scale, shift * scale + norm_shift
    weights, bias = kernel.astype(np.float32), shift.astype(np.float32)
    return Map(
        lambda x: convolve(x, weights, stride) + bias,
        lambda shape: _convolution_constant(kernel, shape, stride),
    )


def dense(module: Variables, name: str) -> Map:
    """Return a linear layer on the flattened input."""
    layer = module.params[name]
    matrix = np.asarray(layer["kernel"], np.float64).T
    return Map(
        lambda x: x.reshape(len(x), -1) @ jnp.asarray(layer["kernel"]) + layer["bias"],
        lambda shape: float(np.linalg.norm(matrix, 2)),
        matrix,
    )


def average_pool(window: int, stride: int) -> Map:
    """Return the mean of each window, including the zeros around the image."""
    kernel = np.full((window, window, 1, 1), window**-2.0)

    def apply(x: Array) -> Array:
        return convolve(x, np.repeat(kernel, x.shape[-1], -1).astype(np.float32), stride)

    return Map(apply, lambda shape: _convolution_constant(kernel, (*shape[:2], 1), stride))


def convolve(x: Array, kernel: np.ndarray, stride: int) -> Array:
    """Convolve as `models` does, with lax only, which also has forward derivatives."""
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _convolution_constant(kernel: np.ndarray, shape: Shape, stride: int) -> float:
    """Bound a convolution's norm from above: by SVD if small, by frequency, or power iteration.

    The first two hold with certainty, the last with probability 1 - 1e-6.
    """
    height, width, channels = shape
    groups = channels // kernel.shape[2]
    options = {"stride": stride, "groups": groups}
    if kernel.shape[:2] == (1, 1):
        return bounds.convolution_bound(kernel, (1, 1), **options)  # exact for images of any size
    into, out = kernel.shape[2], kernel.shape[3] // groups
    pixels = height * width
    if groups * out * into * pixels * -(-pixels // stride**2) <= EXACT:
        return bounds.convolution_norm_exact(kernel, (height, width), **options)
    smaller, larger = sorted((out, into * stride**2))
    if groups * (pixels / stride**2) * smaller**2 * larger <= WORK:
        return bounds.convolution_bound(kernel, (height, width), **options)
    weights = kernel.astype(np.float32)
    norm = bounds.operator_norm(
        lambda x: convolve(x[None], weights, stride)[0],
        jnp.zeros(shape),
        key=jax.random.key(0),
        num_iterations=ITERATIONS,
    )
    return float(norm.upper)
