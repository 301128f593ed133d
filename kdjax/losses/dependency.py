"""Wasserstein dependency: objectives on a table of scores, and the penalty on a critic's slope.

A critic f scores every pair of a batch, f_ij = f(x_i, y_j); the pairs (i, i) are real. The critic
and the network that computes x both *maximise* an objective. With a 1-Lipschitz f it measures a
Wasserstein dependency, which stays bounded where mutual information does not. With any f,
`predictive_coding` is the objective of CPC (InfoNCE).

Source: Ozair et al. 2019 (arXiv 1903.11780). Only its abstract was available: the exact forms are
reconstructions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from kdjax.errors import UserError
from kdjax.losses._types import Scalar
from kdjax.types import Array

Pairs = Callable[[Array, Array], Array]
POINTS = ("joint", "product", "interpolated")


def dual_dependency(scores: Float[Array, "rows columns"], *, off_diagonal: bool = False) -> Scalar:
    """Wasserstein dependency in its dual form: mean_i f_ii - mean_ij f_ij, to be maximised.

    Couples the batch. With a 1-Lipschitz f it is at most the exact transport cost between the
    batch's pairs and all pairs of its sides.

    Args:
      scores: f(x_i, y_j), [batch, batch].
      off_diagonal: take the second mean over i != j, which makes it unbiased for independent pairs.

    Returns:
      [], in the unit of f.

    Raises:
      UserError: scores that are not square, or of a single pair, which has no negatives.

    Source: Ozair et al. 2019 (arXiv 1903.11780), reconstruction.

    >>> print(dual_dependency(jnp.eye(2)), dual_dependency(jnp.eye(2), off_diagonal=True))
    0.5 1.0
    """
    scores = _square(scores)
    count = scores.shape[0]
    joint = jnp.trace(scores) / count
    if off_diagonal:
        return joint - (jnp.sum(scores) - jnp.trace(scores)) / (count * (count - 1))
    return joint - jnp.mean(scores)


def predictive_coding(scores: Float[Array, "rows columns"]) -> Scalar:
    """Objective of CPC and WPC: mean_i [ f_ii - ln sum_j exp f_ij ], to be maximised.

    Couples the batch; the sum includes the positive. Objective + ln(batch) is the InfoNCE value, at
    most ln(batch). f is arbitrary in CPC, Lipschitz in WPC.

    Args:
      scores: f(x_i, y_j), [batch, batch].

    Returns:
      [], nats, at most 0.

    Raises:
      UserError: scores that are not square, or of a single pair, which has no negatives.

    Source: van den Oord et al. 2018 (arXiv 1807.03748); for WPC Ozair et al. 2019 (arXiv
      1903.11780), reconstruction.

    >>> print(round(float(predictive_coding(jnp.zeros((4, 4)))), 4))  # -ln 4: nothing is known
    -1.3863
    """
    scores = _square(scores)
    return jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores, axis=1)))


def gradient_penalty(
    critic: Pairs,
    x: Float[Array, "batch width"],
    y: Float[Array, "rows other"],
    *,
    sides: int = 1,
    at: str = "interpolated",
    key: Array | None = None,
    mix: Float[Array, "rows 1"] | None = None,
    permutation: Int[Array, " rows"] | None = None,
) -> Scalar:
    """Penalise slopes of a critic other than 1, at points between real and false pairs.

    With g the gradient of f in the joint input (x, y): mean (|g| - 1)^2 for two sides,
    mean max(0, |g| - 1)^2 for one. The points are (x_i, u_i y_i + (1 - u_i) y_p(i)): joint u = 1,
    product u = 0, interpolated u in [0, 1). A small penalty does not bound the slope elsewhere.

    Args:
      critic: f(x, y) -> [batch]; row i depends on x_i and y_i only.
      x: one side of the pairs.
      y: the other, [batch, width].
      sides: 1 or 2.
      at: "joint", "product" or "interpolated".
      key: draws u, uniform, and p, a cyclic shift that leaves no pair real, unless both are passed.
      mix: u.
      permutation: p.

    Returns:
      [], squared unit of f over that of (x, y).

    Raises:
      UserError: other values of `sides` or `at`, x and y of different lengths, a single pair where
        two are needed, neither a key nor u and p.

    Source: Gulrajani et al. 2017 (arXiv 1704.00028) for two sides; the points are our choice.

    >>> f = lambda x, y: 3 * x[:, 0] + 4 * y[:, 0]  # its slope is 5
    >>> print(gradient_penalty(f, jnp.ones((2, 1)), jnp.ones((2, 1)), at="joint"))
    16.0
    """
    if sides not in (1, 2):
        raise UserError(f"sides: must be 1 or 2, got {sides!r}")
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise UserError(f"x {x.shape} and y {y.shape} must be [batch, width] with one batch")
    y = penalty_points(y, at=at, key=key, mix=mix, permutation=permutation)
    gradients = jax.grad(lambda a, b: jnp.sum(critic(a, b)), argnums=(0, 1))(x, y)
    squared = sum(jnp.sum(jnp.square(g), axis=1) for g in gradients)
    # where f is flat the root has no derivative; 0 is a subgradient of the length
    flat = squared == 0
    excess = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, squared))) - 1
    return jnp.mean(jnp.square(jnp.maximum(excess, 0.0) if sides == 1 else excess))


def penalty_points(
    y: Float[Array, "rows ..."],
    *,
    at: str = "interpolated",
    key: Array | None = None,
    mix: Float[Array, "rows ..."] | None = None,
    permutation: Int[Array, " rows"] | None = None,
) -> Float[Array, "rows ..."]:
    """Return the points of `gradient_penalty`, u_i y_i + (1 - u_i) y_p(i); arguments as there.

    Couples the batch: compute all points, then divide the rows over devices.

    Raises:
      UserError: as `gradient_penalty`.

    Source: as `gradient_penalty`.

    >>> penalty_points(jnp.array([[0.0], [1.0]]), at="product", key=jax.random.key(0)).tolist()
    [[1.0], [0.0]]
    """
    if at not in POINTS:
        raise UserError(f"at: must be one of {', '.join(POINTS)}, got {at!r}")
    if at == "joint":
        return y
    count = len(y)
    if count < 2:
        raise UserError(f"y: a batch of {count} has no false pair; at={at!r} needs two or more")
    if key is None and (permutation is None or (mix is None and at == "interpolated")):
        raise UserError(f"key: at={at!r} draws its points; give a key, or mix and permutation")
    key = jax.random.key(0) if key is None else key  # unused: mix and permutation are passed
    if permutation is None:
        shift = jax.random.randint(jax.random.fold_in(key, 0), (), 1, count)
        permutation = (jnp.arange(count) + shift) % count
    if jnp.shape(permutation) != (count,):
        raise UserError(f"permutation: shape {jnp.shape(permutation)} must be ({count},)")
    other = y[permutation]
    if at == "product":
        return other
    if mix is None:
        mix = jax.random.uniform(jax.random.fold_in(key, 1), (count, *[1] * (y.ndim - 1)))
    if jnp.shape(mix) != (count, *[1] * (y.ndim - 1)):
        raise UserError(f"mix: shape {jnp.shape(mix)} must be ({count}, 1)")
    return mix * y + (1 - mix) * other


def _square(scores: Array) -> Array:
    if jnp.ndim(scores) != 2 or scores.shape[0] != scores.shape[1]:
        raise UserError(f"scores: shape {jnp.shape(scores)} must be [batch, batch]")
    if scores.shape[0] < 2:
        raise UserError("scores: a batch of one pair has no negatives; use two or more")
    return scores.astype(jnp.float32)
