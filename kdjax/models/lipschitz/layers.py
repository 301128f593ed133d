"""1-Lipschitz layers: spectral normalisation, orthonormalisation, sorting activations.

Kernels are [inputs, outputs] as in Flax; all constants are in Euclidean norms.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.errors import UserError
from kdjax.types import Array

START = 50  # power iterations before the first step; one per step suffices for small updates
_BJORCK = {1: (1.5, -0.5), 2: (15 / 8, -5 / 4, 3 / 8), 3: (35 / 16, -35 / 16, 21 / 16, -5 / 16)}


def _matmul(a: Array, b: Array) -> Array:
    """Multiply in full float32: the default of GPUs and TPUs breaks a certificate."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def start_vector(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw a unit vector (of any number of axes) from which power iteration starts."""
    normal = jax.random.normal(key, shape)
    return normal / jnp.linalg.norm(normal.ravel())


def init_dense(key: Array, sizes: Sequence[int]) -> tuple[list[dict[str, Array]], list[Array]]:
    """Draw dense layers {"kernel", "bias"} between the sizes, and vectors for `spectral_dense`."""
    layers, vectors = [], []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        kernel_key, start = jax.random.split(jax.random.fold_in(key, number))
        kernel = jax.random.normal(kernel_key, (inputs, outputs)) / math.sqrt(inputs)
        layers.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
        vector = start_vector(start, (outputs,))
        vectors.append(spectral_dense(kernel, vector, num_iters=START)[1])
    return layers, vectors


def spectral_dense(kernel: Array, vector: Array, *, num_iters: int = 1) -> tuple[Array, Array]:
    """Divide a kernel by its largest singular value, estimated by power iteration.

    v <- normalised K u, u <- normalised K' v, K / (v' K u); no gradient through the vectors. The
    estimate is at most the singular value, so before convergence the norm of the result is 1 or
    slightly more.

    Args:
      kernel: [inputs, outputs].
      vector: u, [outputs], of the last call (or `start_vector`).
      num_iters: 0 does not change the vector (in evaluation).

    Returns:
      The kernel and u.

    Source: Miyato et al. 2018 (arXiv 1802.05957), algorithm 1.

    >>> kernel, u = spectral_dense(3 * jnp.eye(2), jnp.array([1.0, 0.0]))
    >>> print(float(kernel[0, 0]))
    1.0
    """
    fixed = lax.stop_gradient(kernel)
    u = vector
    for _ in range(num_iters):
        u = _unit(_matmul(fixed.T, _unit(_matmul(fixed, u))))
    u = lax.stop_gradient(u)
    v = lax.stop_gradient(_unit(_matmul(fixed, u)))
    return kernel / _positive(_matmul(_matmul(v, kernel), u)), u


def spectral_conv(
    kernel: Array,
    vector: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    num_iters: int = 1,
) -> tuple[Array, Array]:
    """Divide a convolution's kernel by the norm of the *operator*, for images of one size.

    Power iteration uses the convolution and its transpose. The norm of the kernel reshaped to a
    matrix can be smaller by up to the square root of the window.

    Args:
      kernel: [height, width, in, out].
      vector: [rows, columns, in], an image of the layer's input size.
      strides: strides of the convolution.
      padding: "SAME" or "VALID".
      num_iters: 0 does not change the vector (in evaluation).

    Returns:
      The kernel and the vector.

    Source: Gouk et al. 2018 (arXiv 1804.04368), section 3.

    >>> kernel, _ = spectral_conv(2 * jnp.ones((1, 1, 1, 1)), jnp.ones((2, 2, 1)) / 2)
    >>> print(float(kernel[0, 0, 0, 0]))
    1.0
    """

    def conv(k: Array, image: Array) -> Array:
        form = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            image[None], k, strides, padding, dimension_numbers=form,
            precision=lax.Precision.HIGHEST,
        )[0]  # fmt: skip

    fixed = lax.stop_gradient(kernel)
    image, back = vector, jax.linear_transpose(lambda x: conv(fixed, x), vector)
    for _ in range(num_iters):
        image = _unit(back(conv(fixed, image))[0])
    image = lax.stop_gradient(image)
    output = lax.stop_gradient(_unit(conv(fixed, image)))
    return kernel / _positive(jnp.sum(output * conv(kernel, image))), image


def bjorck(kernel: Array, *, order: int = 1, num_iters: int = 20) -> Array:
    """Approximate the nearest orthonormal kernel: all singular values approach 1 from below.

    K is first divided by sqrt(max row sum x max column sum of |K|) >= its norm; then, for order 1,
    K <- 1.5 K - .5 K K'K. No singular value exceeds 1 (up to rounding); initially small ones are
    still below 1 after few iterations, and those of 0 grow from rounding errors after many.
    Differentiable through all iterations.

    Args:
      kernel: [inputs, outputs].
      order: 1, 2 or 3: terms of the expansion beyond the first.
      num_iters: at least 1.

    Raises:
      UserError: another order, or no iteration.

    Source: Bjorck and Bowie 1971; Anil et al. 2019 (arXiv 1811.05381).

    >>> print(bjorck(jnp.array([[3.0, 0.0], [0.0, 2.0]])).round(4))
    [[1. 0.]
     [0. 1.]]
    """
    if order not in _BJORCK:
        raise UserError(f"order: must be 1, 2 or 3, got {order!r}")
    if num_iters < 1:
        raise UserError(f"num_iters: must be >= 1, got {num_iters}")
    # Divide by the largest entry first: sums of very large or small entries would leave float32.
    kernel = kernel / _positive(lax.stop_gradient(jnp.max(jnp.abs(kernel))))
    size = lax.stop_gradient(jnp.abs(kernel))
    bound = jnp.sqrt(jnp.max(jnp.sum(size, 0)) * jnp.max(jnp.sum(size, 1)))
    return bjorck_iterations(kernel / _positive(bound), order=order, num_iters=num_iters)


def bjorck_iterations(kernel: Array, *, order: int, num_iters: int) -> Array:
    """Iterate on a kernel whose singular values are at most 1; see `bjorck`.

    Every iteration starts from K itself. Products of polynomials of K'K alone would cost less, but
    they multiply the rounding errors of small singular values until these exceed 1.
    """
    tall = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
    for _ in range(num_iters):
        gram = _matmul(tall.T, tall)
        power, total = tall, _BJORCK[order][0] * tall
        for weight in _BJORCK[order][1:]:
            power = _matmul(power, gram)
            total = total + weight * power
        tall = total
    return tall if kernel.shape[0] >= kernel.shape[1] else tall.T


def group_sort(x: Array, *, size: int = 2) -> Array:
    """Sort neighbours within groups of `size`, ascending: 1-Lipschitz, preserves gradient norms.

    Size 2 is MaxMin. The norm does not change.

    Args:
      x: [..., features].
      size: divides the features.

    Raises:
      UserError: `size` does not divide the features.

    Source: Anil et al. 2019 (arXiv 1811.05381).

    >>> print(group_sort(jnp.array([3.0, 1.0, 2.0, 5.0])))
    [1. 3. 2. 5.]
    """
    if size < 1 or x.shape[-1] % size:
        raise UserError(f"group_sort: groups of {size} must divide the {x.shape[-1]} features")
    grouped = x.reshape(*x.shape[:-1], -1, size)
    if size == 2:  # one comparison instead of a sort
        # not jnp.min and max: their gradient divides by the number of values equal to the result, 0
        # where a compiler rounds the two differently; equal neighbours share the gradient
        a, b = grouped[..., 0], grouped[..., 1]
        even, pair = a / 2 + b / 2, (jnp.where(a > b, b, a), jnp.where(a > b, a, b))
        return jnp.stack([jnp.where(a == b, even, z) for z in pair], -1).reshape(x.shape)
    return jnp.sort(grouped, axis=-1).reshape(x.shape)


def project_to_ball(x: Array, radius: float) -> Array:
    """Project vectors to the ball of `radius`: 1-Lipschitz, as every projection."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    outside = squared > radius**2  # inside, the root is not used: it has no derivative at 0
    length = jnp.sqrt(jnp.where(outside, squared, 1.0))
    return jnp.where(outside, x * (radius / length), x)


def _unit(x: Array) -> Array:
    return x / _positive(jnp.linalg.norm(x.ravel()))


def _positive(value: Array) -> Array:
    """Replace 0 by 1, so that a layer of zeros does not change."""
    return jnp.where(value > 0, value, 1.0)
