"""A network's layers as maps, from its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax import bounds
from kdjax.models.certificates.maps import Map, Shape
from kdjax.types import Array, Variables

__all__ = ["average_pool", "convolution", "convolve", "dense", "inside", "names", "norm"]

EXACT = 1_100_000  # entries of a matrix whose SVD takes under a second
WORK = 5e7  # pixels x channels^3, below which one matrix a frequency beats power iteration
ITERATIONS = 300  # of power iteration: its upper value is then at most 3 % above


def inside(at: Variables, name: str) -> Variables:
    """The variables of a submodule."""
    return Variables(at.params[name], at.stats.get(name, {}))


def names(at: Variables, prefix: str) -> list[str]:
    """The submodules `prefix`0, `prefix`1, ... in the order of their numbers."""
    found = [n for n in at.params if n.startswith(prefix) and n[len(prefix) :].isdigit()]
    return sorted(found, key=lambda name: int(name[len(prefix) :]))


def _scale(at: Variables, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a batch norm multiplies each channel by in evaluation mode, and what it adds then."""
    said, kept = at.params[name], at.stats[name]
    scale = np.float64(said["scale"]) / np.sqrt(np.float64(kept["var"]) + 1e-5)
    return scale, np.float64(said["bias"]) - scale * np.float64(kept["mean"])


def norm(at: Variables, name: str) -> Map:
    """A batch norm by itself: its largest factor."""
    scale, shift = _scale(at, name)
    return Map(
        lambda x: x * jnp.float32(scale) + jnp.float32(shift),
        lambda shape: float(np.abs(scale).max()),
    )


def convolution(at: Variables, conv: str, folded: str | None = None, *, stride: int = 1) -> Map:
    """A convolution and, folded into it, the batch norm that follows; groups as the shapes say."""
    kernel = np.asarray(at.params[conv]["kernel"], np.float64)
    shift = np.asarray(at.params[conv].get("bias", 0.0), np.float64)
    if folded is not None:
        scale, moved = _scale(at, folded)
        kernel, shift = kernel * scale, shift * scale + moved
    weights, bias = kernel.astype(np.float32), shift.astype(np.float32)

    def constant(shape: Shape) -> float:
        return _norm(kernel, shape, stride)

    return Map(lambda x: convolve(x, weights, stride) + bias, constant)


def dense(at: Variables, name: str) -> Map:
    """A linear layer on whatever shape, flattened."""
    layer = at.params[name]
    matrix = np.asarray(layer["kernel"], np.float64).T
    return Map(
        lambda x: x.reshape(len(x), -1) @ jnp.asarray(layer["kernel"]) + layer["bias"],
        lambda shape: float(np.linalg.norm(matrix, 2)),
        matrix,
    )


def average_pool(window: int, stride: int) -> Map:
    """Mean of each window, the zeros around the image among what is averaged."""
    kernel = np.full((window, window, 1, 1), window**-2.0)

    def apply(x: Array) -> Array:
        return convolve(x, np.repeat(kernel, x.shape[-1], -1).astype(np.float32), stride)

    return Map(apply, lambda shape: _norm(kernel, (*shape[:2], 1), stride))


def convolve(x: Array, kernel: np.ndarray, stride: int) -> Array:
    """As `models.conv`, by lax alone, which has forward derivatives too."""
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _norm(kernel: np.ndarray, shape: Shape, stride: int) -> float:
    """Upper bound of a convolution's norm: by SVD if small, by frequency, or by power iteration.

    The first two are certain, the last one up to a probability of 1e-6.
    """
    height, width, channels = shape
    groups = channels // kernel.shape[2]
    told = {"stride": stride, "groups": groups}
    if kernel.shape[:2] == (1, 1):
        return bounds.convolution_bound(kernel, (1, 1), **told)  # exact, whatever the image
    into, out = kernel.shape[2], kernel.shape[3] // groups
    pixels = height * width
    if groups * out * into * pixels * -(-pixels // stride**2) <= EXACT:
        return bounds.convolution_norm_exact(kernel, (height, width), **told)
    few, many = sorted((out, into * stride**2))
    if groups * (pixels / stride**2) * few**2 * many <= WORK:
        return bounds.convolution_bound(kernel, (height, width), **told)
    weights = kernel.astype(np.float32)
    function = lambda x: convolve(x[None], weights, stride)[0]  # noqa: E731
    found = bounds.operator_norm(
        function, jnp.zeros(shape), key=jax.random.key(0), num_iterations=ITERATIONS
    )
    return float(found.upper)
