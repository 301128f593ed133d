"""Lipschitz constants of operators given as functions, of composed layers, of small ReLU networks.

All are with respect to Euclidean norms.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.bounds._backend import Numbers, Result, arrays, check_integer, check_not_negative
from kdjax.errors import UserError
from kdjax.types import Array

_UNITS = 14  # hidden units whose 2^14 patterns take about a second
_CHUNK = 4_096


class OperatorNorm(NamedTuple):
    """`lower` is attained by a vector; `upper` holds with the stated probability."""

    lower: Array
    upper: Array


def operator_norm(
    function: Callable[[Array], Array],
    point: Numbers,
    *,
    key: Array,
    num_iterations: int = 100,
    failure: float = 1e-6,
) -> OperatorNorm:
    """Largest singular value of the Jacobian A of `function` at `point`, by power iteration, JAX.

    lower = ||A v|| of the last unit vector v. For a Gaussian start g and B = A'A, the component of
    g along the top eigenvector is N(0, 1), so lambda <= (||B^k g|| / t)^(1/k) except with
    probability t sqrt(2 / pi) = `failure`: upper = (||B^k g|| / t)^(1 / 2k), at most
    (sqrt(d) / t)^(1 / 2k) times too large (1.1 for 100 iterations and d = 1,000). For a linear
    layer (dense, convolution, pooling; a bias does not matter) this is its Lipschitz constant at
    any point; for others it is the local one. Rounding adds about 1e-6.

    Args:
        function: array -> array, differentiable (jvp and vjp).
        point: of the Jacobian; any array of the input's shape if `function` is linear.
        key: typed PRNG key, consumed.
        num_iterations: k.
        failure: probability that `upper` is too small.

    Returns:
        Two scalars, unit of output over input.

    Raises:
        UserError: k < 1, failure outside (0, 1).

    Source: power iteration; the upper value is a reconstruction (cf. Kuczynski and Wozniakowski
        1992).

    >>> norm = operator_norm(lambda x: 3 * x, jnp.zeros(4), key=jax.random.key(0))
    >>> print(round(float(norm.lower), 4), bool(norm.upper >= 3))
    3.0 True
    """
    check_integer("num_iterations", num_iterations, 1)
    if not 0 < failure < 1:
        raise UserError(f"failure: must lie in (0, 1), got {failure:g}")
    at = jnp.asarray(point, _at_least_float32(point))
    # A loop of jitted steps: a convolution inside lax.scan is ten times slower on the CPU.
    step = jax.jit(lambda v: _squared_step(function, at, v))
    start = jax.random.normal(key, at.shape, at.dtype)
    size = jnp.linalg.norm(start.ravel())
    vector, log_size, forward = start / size, jnp.log(size), jnp.zeros(())
    for _ in range(num_iterations):
        vector, growth, forward = step(vector)
        log_size = log_size + jnp.log(growth)
    share = math.log(failure) + 0.5 * math.log(math.pi / 2)
    upper = jnp.exp((log_size - share) / (2 * num_iterations))
    return OperatorNorm(forward, jnp.maximum(upper, forward))


def _at_least_float32(point: Numbers) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(float, point), jnp.float32)


def _squared_step(
    function: Callable[[Array], Array], at: Array, vector: Array
) -> tuple[Array, Array, Array]:
    """Return A'A v normalized, its length before, and ||A v||, for v of length 1."""
    _, pull = jax.vjp(function, at)
    image = jax.jvp(function, (at,), (vector,))[1]
    (back,) = pull(image)
    size = jnp.linalg.norm(back.ravel())
    unit = jnp.where(size > 0, back / jnp.where(size > 0, size, 1.0), vector)
    return unit, size, jnp.linalg.norm(image.ravel())


def operator_norm_exact(function: Callable[[Array], Array], point: Numbers) -> float:
    """Largest singular value of the Jacobian of `function` at `point`, exact: host SVD, float64.

    For small layers: the whole Jacobian is computed, [outputs, inputs].

    Returns:
        Unit of output over input.

    Raises:
        UserError: a Jacobian of more than 4,000,000 entries.

    >>> print(operator_norm_exact(lambda x: x[:1] - x[1:], jnp.zeros(2)).__round__(4))
    1.4142
    """
    at = jnp.asarray(point, _at_least_float32(point))
    out = jax.eval_shape(function, at)
    if out.size * at.size > 4_000_000:
        raise UserError(f"function: its Jacobian is {out.size} x {at.size}; use operator_norm")
    jacobian = np.asarray(jax.jacobian(function)(at), np.float64).reshape(out.size, at.size)
    return float(np.linalg.norm(jacobian, 2))


def lipschitz_tails(constants: Numbers) -> Result:
    """Product of the constants after each layer: tail_l = prod_{j > l} constant_j, l = 0 to L.

    An upper value if every constant is (activation's constant times the layer's norm).

    Args:
        constants: [layers], first layer first.

    Returns:
        [layers + 1]: first the network's, last 1; for `wasserstein_bound`.

    Raises:
        UserError: negative or non-finite constants, another rank.

    >>> print(lipschitz_tails([2.0, 3.0]))
    [6. 3. 1.]
    """
    check_not_negative("constants", constants)
    xp, values = arrays(constants)
    if values.ndim != 1:
        raise UserError(f"constants: shape {values.shape} must be [layers]")
    backwards = xp.concatenate([xp.ones(1, values.dtype), values[::-1]])
    return xp.cumprod(backwards)[::-1]


def product_bound(constants: Numbers) -> Result:
    """Upper bound of the Lipschitz constant of composed layers: the product of theirs.

    Args:
        constants: [*batch, layers].

    Returns:
        [*batch].

    Raises:
        UserError: negative or non-finite constants.

    >>> print(float(product_bound([2.0, 3.0])))
    6.0
    """
    check_not_negative("constants", constants)
    xp, values = arrays(constants)
    return xp.prod(values, axis=-1)


def residual_bound(shortcut: Numbers, branch: Numbers) -> Result:
    """Upper bound of a residual block's Lipschitz constant: ||P||_op + Lip(F).

    Args:
        shortcut: ||P||_op, 1 for an identity.
        branch: Lip(F).

    Returns:
        Broadcast over the arguments.

    Raises:
        UserError: negative or non-finite constants.

    >>> print(float(residual_bound(1.0, 0.5)))
    1.5
    """
    check_not_negative("shortcut", shortcut)
    check_not_negative("branch", branch)
    _, first, second = arrays(shortcut, branch)
    return first + second


def absolute_product_bound(weights: Sequence[Numbers]) -> float:
    """Upper bound for an MLP with slopes in [0, 1]: min of prod ||W_l|| and || |W_L|...|W_1| ||.

    Any pattern of slopes gives a matrix that is entrywise, and so in norm, at most |W_L| ... |W_1|.
    Host, float64; any width.

    Args:
        weights: [out, in] of every layer, first layer first (a Flax kernel transposed).

    Returns:
        Unit of output over input.

    Raises:
        UserError: shapes that do not follow each other, non-finite weights.

    Source: reconstruction.

    >>> print(absolute_product_bound([[[1.0], [0.0]], [[0.0, 1.0]]]))
    0.0
    """
    matrices = _checked_weights(weights)
    product = math.prod(float(np.linalg.norm(w, 2)) for w in matrices)
    composed = np.abs(matrices[0])
    for matrix in matrices[1:]:
        composed = np.abs(matrix) @ composed
    return min(product, float(np.linalg.norm(composed, 2)))


def activation_pattern_bound(weights: Sequence[Numbers]) -> float:
    """Upper bound for a small ReLU MLP: max over D_l in {0, 1} of ||W_L D_(L-1) ... D_1 W_1||.

    Every pattern of active units is tried (2^units of them, at most 14 units), so it is at most
    the product of norms and at most `absolute_product_bound`; it is the constant itself if every
    pattern occurs. Holds for all slopes in [0, 1], as a norm is largest at a corner. Host, float64.

    Arguments and result as in `absolute_product_bound`.

    Raises:
        UserError: more than 14 hidden units, shapes that do not follow each other.

    Source: enumeration; cf. Virmaux and Scaman 2018 (arXiv 1805.10965).

    >>> print(activation_pattern_bound([[[1.0], [-1.0]], [[1.0, 1.0]]]))  # the slope of |x|
    1.0
    """
    matrices = _checked_weights(weights)
    hidden = [w.shape[0] for w in matrices[:-1]]
    if sum(hidden) > _UNITS:
        raise UserError(
            f"weights: {sum(hidden)} hidden units have too many patterns (at most {_UNITS}); use "
            "absolute_product_bound"
        )
    patterns = np.array(list(itertools.product((0.0, 1.0), repeat=sum(hidden))))
    largest = 0.0
    for chunk in np.array_split(patterns, -(-len(patterns) // _CHUNK)):
        composed = np.broadcast_to(matrices[0], (len(chunk), *matrices[0].shape))
        masks = np.split(chunk, np.cumsum(hidden)[:-1], axis=1) if hidden else []
        for mask, matrix in zip(masks, matrices[1:], strict=True):
            composed = matrix @ (mask[:, :, None] * composed)
        largest = max(largest, float(np.linalg.norm(composed, 2, axis=(1, 2)).max()))
    return largest


def _checked_weights(weights: Sequence[Numbers]) -> list[np.ndarray]:
    matrices = [np.asarray(w, np.float64) for w in weights]
    if not matrices or any(w.ndim != 2 or not np.isfinite(w).all() for w in matrices):
        raise UserError("weights: must be at least one finite [out, in] matrix a layer")
    for i, (first, second) in enumerate(itertools.pairwise(matrices), start=1):
        if second.shape[1] != first.shape[0]:
            raise UserError(
                f"weights: layer {i} takes {second.shape[1]} units, layer {i - 1} gives "
                f"{first.shape[0]}"
            )
    return matrices
