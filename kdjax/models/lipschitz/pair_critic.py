"""Pair critics: a score for every x with every y; the constrained ones are 1-Lipschitz in (x, y).

    critic = build("bilinear_bjorck", width=64)
    variables = critic.init(key, x, y)                      # x [batch, features], y [batch, others]
    scores, stats = critic.scores(variables, x, y, train=True)               # [batch, batch]

"bilinear": <phi(x), psi(y)>, two small networks and one matrix product; memory grows as batch^2.
"concat": one network on both, with a first layer that is computed once per side; memory grows as
batch^2 x width. Both exist unconstrained (for CPC, or with a gradient penalty), with spectral
normalisation, and with orthonormal (Bjorck) layers; the last two use MaxMin in place of ReLU.
Lipschitz constants are in the Euclidean norm of (x, y).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError, check_count
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.types import Array, PyTree, Variables

KINDS = tuple(form + how for form in ("bilinear", "concat") for how in ("", "_spectral", "_bjorck"))
Layer = dict[str, Array]


class _Scores(Protocol):
    def __call__(
        self, variables: Variables, x: Array, y: Array, *, train: bool
    ) -> tuple[Array, PyTree]: ...


class PairCritic(NamedTuple):
    """Critic f(x, y): `scores` of all pairs [batch_x, batch_y], `pairs` of (x_i, y_i) [batch].

    `upper_bound(variables)` certifies a Lipschitz constant in the Euclidean norm of (x, y), by SVD
    in float64; it raises UserError for a plain bilinear critic, which has none.
    """

    init: Callable[[Array, Array, Array], Variables]
    scores: _Scores
    pairs: Callable[[Variables, Array, Array], Array]
    constrained: bool
    upper_bound: Callable[[Variables], float]


def build(kind: str, *, width: int = 128, depth: int = 1, radius: float = 1.0) -> PairCritic:
    """Make a critic.

    Args:
      kind: one of KINDS.
      width: width of every layer.
      depth: layers of each side ("bilinear"), or hidden layers ("concat").
      radius: radius of the ball to which a constrained bilinear critic projects both sides; its
        scores lie within radius / sqrt 2.

    Raises:
      UserError: no such kind, or a number that is too small.

    >>> critic = build("bilinear_bjorck", width=4)
    >>> x, y = jnp.ones((3, 2)), jnp.ones((3, 5))
    >>> variables = critic.init(jax.random.key(0), x, y)
    >>> critic.scores(variables, x, y, train=False)[0].shape, critic.upper_bound(variables) < 1.001
    ((3, 3), True)
    """
    if kind not in KINDS:
        raise UserError(f"kind: no critic {kind!r}; there are {', '.join(KINDS)}")
    for name, value in (("width", width), ("depth", depth)):
        check_count(name, value)
    form, _, how = kind.partition("_")
    if how and width % 2:
        raise UserError(f"width: must be even, since {kind} sorts pairs, got {width}")
    if not 0 < radius < math.inf:
        raise UserError(f"radius: must be a finite number > 0, got {radius!r}")
    critic = (_bilinear if form == "bilinear" else _concat)(how, width, depth, float(radius))
    init, scores = _exact(critic.init), _exact(critic.scores)
    return critic._replace(init=init, scores=scores, pairs=_pairs(critic))


def _exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute products in full float32; the default of GPUs and TPUs breaks the certificate."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return call


def _pairs(critic: PairCritic) -> Callable[[Variables, Array, Array], Array]:
    """Check that the numbers of x and y are equal: a single one would be broadcast."""
    inner = _exact(critic.pairs)

    def pairs(variables: Variables, x: Array, y: Array) -> Array:
        if len(x) != len(y):
            raise UserError(f"pairs: {len(x)} x and {len(y)} y; the numbers must be equal")
        return inner(variables, x, y)

    return pairs


def _bilinear(how: str, width: int, depth: int, radius: float) -> PairCritic:
    def init(key: Array, x: Array, y: Array) -> Variables:
        keys = jax.random.split(key, 2)
        sides = {
            side: _init(k, [z.shape[1], *[width] * depth], how)
            for side, k, z in (("x", keys[0], x), ("y", keys[1], y))
        }
        return _join(sides)

    def embed(variables: Variables, x: Array, y: Array, train: bool):
        vectors, stats = {}, {}
        for side, z in (("x", x), ("y", y)):
            kernels, stats[side] = _kernels(variables, side, how, train)
            vectors[side] = _forward(z, kernels, variables.params[side], how)
            if how:
                vectors[side] = lipschitz.project_to_ball(vectors[side], radius)
        return vectors["x"], vectors["y"], (stats if how == "spectral" else variables.stats)

    # the gradient of <a, b> is (b, a), of length sqrt(2) radius at most
    scale = 1 / (math.sqrt(2) * radius) if how else 1 / math.sqrt(width)

    def scores(variables: Variables, x: Array, y: Array, *, train: bool):
        a, b, stats = embed(variables, x, y, train)
        return scale * a @ b.T, stats

    def pairs(variables: Variables, x: Array, y: Array) -> Array:
        a, b, _ = embed(variables, x, y, False)
        return scale * jnp.sum(a * b, axis=1)

    def upper_bound(variables: Variables) -> float:
        if not how:
            raise UserError(
                "a plain bilinear critic has no Lipschitz constant: its slope grows with its "
                "inputs; use bilinear_spectral or bilinear_bjorck, or measure its slope"
            )
        return max(_product(variables, side, how) for side in ("x", "y"))

    return PairCritic(init, scores, pairs, bool(how), upper_bound)


def _concat(how: str, width: int, depth: int, radius: float) -> PairCritic:
    del radius  # no projection, because the network is 1-Lipschitz

    def init(key: Array, x: Array, y: Array) -> Variables:
        sizes = [x.shape[1] + y.shape[1], *[width] * depth, 1]
        return _join({"xy": _init(key, sizes, how)})

    def upper_layers(variables: Variables, kernels: list[Array], first: Array) -> Array:
        layers = variables.params["xy"]
        hidden = _activate(first + layers[0]["bias"], how)
        return _forward(hidden, kernels[1:], layers[1:], how)[..., 0]

    def scores(variables: Variables, x: Array, y: Array, *, train: bool):
        kernels, stats = _kernels(variables, "xy", how, train)
        a, b = x @ kernels[0][: x.shape[1]], y @ kernels[0][x.shape[1] :]
        values = upper_layers(variables, kernels, a[:, None] + b[None])
        return values, ({"xy": stats} if how == "spectral" else variables.stats)

    def pairs(variables: Variables, x: Array, y: Array) -> Array:
        kernels, _ = _kernels(variables, "xy", how, False)
        return upper_layers(variables, kernels, jnp.concatenate([x, y], axis=1) @ kernels[0])

    def upper_bound(variables: Variables) -> float:
        return _product(variables, "xy", how)

    return PairCritic(init, scores, pairs, bool(how), upper_bound)


def measured_slope(critic: PairCritic, variables: Variables, x: Array, y: Array) -> Array:
    """Return the largest slope of f at the points (x_i, y_i), a *lower* bound of its constant."""

    def total(a: Array, b: Array) -> Array:
        return jnp.sum(critic.pairs(variables, a, b))

    gradients = jax.grad(total, argnums=(0, 1))(x, y)
    return jnp.sqrt(jnp.max(sum(jnp.sum(jnp.square(g), axis=1) for g in gradients)))


def _init(key: Array, sizes: list[int], how: str) -> tuple[list[Layer], list[Array]]:
    layers, vectors = lipschitz.init_dense(key, sizes)
    return layers, vectors if how == "spectral" else []


def _join(sides: dict[str, tuple[list[Layer], list[Array]]]) -> Variables:
    stats = {side: vectors for side, (_, vectors) in sides.items() if vectors}
    return Variables({side: layers for side, (layers, _) in sides.items()}, stats)


def _kernels(
    variables: Variables, side: str, how: str, train: bool
) -> tuple[list[Array], list[Array]]:
    """Return a side's constrained kernels, and the vectors after one more iteration."""
    kernels = [layer["kernel"] for layer in variables.params[side]]
    if how == "bjorck":
        return [lipschitz.bjorck(kernel) for kernel in kernels], []
    if how == "spectral":
        vectors = variables.stats[side]
        pairs = [
            lipschitz.spectral_dense(kernel, vector, num_iters=int(train))
            for kernel, vector in zip(kernels, vectors, strict=True)
        ]
        return [kernel for kernel, _ in pairs], [vector for _, vector in pairs]
    return kernels, []


def _forward(x: Array, kernels: list[Array], layers: list[Layer], how: str) -> Array:
    """Apply dense layers with an activation between them."""
    for number, (kernel, layer) in enumerate(zip(kernels, layers, strict=True)):
        x = (_activate(x, how) if number else x) @ kernel + layer["bias"]
    return x


def _activate(x: Array, how: str) -> Array:
    return lipschitz.group_sort(x) if how else jax.nn.relu(x)


def _product(variables: Variables, side: str, how: str) -> float:
    kernels: Any = jax.device_get(_kernels(variables, side, how, False)[0])
    return math.prod(float(np.linalg.norm(np.asarray(k, np.float64), 2)) for k in kernels)
