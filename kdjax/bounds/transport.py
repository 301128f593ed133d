"""1-Wasserstein distances between samples: exact in one dimension, exact by assignment, sliced.

The distance of two *samples* is not that of their laws: two samples of one law in d dimensions
lie about n^(-1/d) apart. Nothing is subtracted here; report `baseline` with every figure.
Exact solvers and `baseline` run on the host, in numpy float64; `wasserstein_1d` and
`sliced_wasserstein` are JAX if their points are JAX arrays (jit, vmap, grad), else numpy.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
from jax.core import Tracer
from scipy.spatial import distance as scipy_distance

from kdjax.bounds._backend import (
    Numbers,
    Result,
    arrays,
    backend,
    check_choice,
    check_integer,
    check_positive,
    floats,
)
from kdjax.bounds._samples import check_costs, check_weights, point_pair, points
from kdjax.errors import UserError

METRICS = ("euclidean", "sqeuclidean", "cityblock")
_COPIES = 4_000  # the largest assignment: 4,000 points take about a minute
_CELLS = 1_000_000  # the largest linear programme


def wasserstein_1d(
    x: Numbers, y: Numbers, a: Numbers | None = None, b: Numbers | None = None
) -> Result:
    """W1 of two weighted samples on the line, exact: integral of |F - G|.

    Args:
        x: [*batch, n].
        y: [*batch, m].
        a: [n] weights of x that sum to 1, uniform if None.
        b: [m] weights of y.

    Returns:
        [*batch], unit of the points; exact for the samples, an estimate for their laws.

    Raises:
        UserError: no sample, non-finite points, weights that are not a distribution.

    >>> print(float(wasserstein_1d([0.0, 1.0], [1.0, 2.0])))
    1.0
    """
    xp, _ = backend(x, y, a, b)
    first, second = floats(xp, x), floats(xp, y)
    for name, sample in (("x", first), ("y", second)):
        if sample.ndim < 1 or sample.shape[-1] == 0:
            raise UserError(f"{name}: shape {sample.shape} must be [*batch, samples], not empty")
        if not isinstance(sample, Tracer) and not np.isfinite(np.asarray(sample)).all():
            raise UserError(f"{name}: points must be finite")
    values = xp.concatenate([first, second], axis=-1)
    order = xp.argsort(values, axis=-1)
    mass = xp.concatenate([_mass(xp, "a", a, first), -_mass(xp, "b", b, second)])[order]
    gaps = xp.diff(xp.take_along_axis(values, order, axis=-1), axis=-1)
    return xp.sum(xp.abs(xp.cumsum(mass, axis=-1)[..., :-1]) * gaps, axis=-1)


def _mass(xp: Any, name: str, weights: Any, sample: Any) -> Any:
    if isinstance(weights, Tracer):
        return weights
    return xp.asarray(check_weights(name, weights, sample.shape[-1]), sample.dtype)


def wasserstein_exact(
    x: Numbers,
    y: Numbers,
    a: Numbers | None = None,
    b: Numbers | None = None,
    *,
    metric: str = "euclidean",
) -> float:
    """Exact optimal transport cost between two weighted samples, on the host in float64.

    min_P sum_ij P_ij c(x_i, y_j) over couplings P of a and b. "euclidean" is W1; "sqeuclidean"
    is W2 squared; "cityblock" is W1 under the L1 norm.

    Args:
        x: [n, d] or [n].
        y: [m, d] or [m].
        a: [n] weights of x, uniform if None.
        b: [m] weights of y.
        metric: "euclidean", "sqeuclidean" or "cityblock".

    Returns:
        Unit of the metric; exact for the samples, an estimate for their laws.

    Raises:
        UserError: an unknown metric, and as `transport_exact`.

    >>> print(wasserstein_exact([[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]))
    1.0
    """
    check_choice("metric", metric, METRICS)
    x, y = point_pair(x, y)
    return transport_exact(scipy_distance.cdist(x, y, metric), a, b)  # pyright: ignore


def transport_exact(cost: Numbers, a: Numbers | None = None, b: Numbers | None = None) -> float:
    """Exact optimal transport for a table of costs, on the host in float64.

    Uniform weights give an assignment of copies (lcm(n, m) of them, at most 4,000), others a linear
    programme of at most 1,000,000 cells.

    Args:
        cost: [n, m], finite and >= 0, such as `labelled_cost`.
        a: [n] weights of the rows, uniform if None.
        b: [m] weights of the columns.

    Returns:
        Unit of the cost.

    Raises:
        UserError: a bad table, weights that are not a distribution, a problem that is too large.

    >>> print(transport_exact([[0.0, 2.0], [2.0, 0.0]], [0.75, 0.25], [0.5, 0.5]))
    0.5
    """
    table = check_costs(cost, "[n, m]", (2,))
    rows, columns = table.shape
    first, second = check_weights("a", a, rows), check_weights("b", b, columns)
    copies = math.lcm(rows, columns)
    if np.ptp(first) == np.ptp(second) == 0 and copies <= _COPIES:
        copied = np.repeat(np.repeat(table, copies // rows, 0), copies // columns, 1)
        return float(copied[scipy.optimize.linear_sum_assignment(copied)].mean())
    if table.size > _CELLS:
        raise UserError(
            f"cost: {rows} x {columns} is too large for an exact plan; use equal sizes up to "
            f"{_COPIES} with uniform weights, fewer samples, or wasserstein_entropic"
        )
    return _linear_programme(table, first, second)


def _linear_programme(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    rows, columns = cost.shape
    row_sums = scipy.sparse.kron(scipy.sparse.eye(rows), np.ones((1, columns)))
    column_sums = scipy.sparse.kron(np.ones((1, rows)), scipy.sparse.eye(columns))
    # One constraint follows from the others; with it, rounding makes the programme infeasible.
    marginals = scipy.sparse.vstack([row_sums, column_sums.tocsr()[:-1]]).tocsr()
    solution = scipy.optimize.linprog(
        cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b[:-1]]), method="highs"
    )
    if not solution.success:
        raise UserError(f"cost: the linear programme found no plan: {solution.message}")
    return float(solution.fun)


def labelled_cost(x: Numbers, y: Numbers, x_labels: Numbers, y_labels: Numbers) -> np.ndarray:
    """Costs ||x_i - y_j|| + |l_i - l_j| of (representation, label) pairs, as in the bounds.

    Args:
        x: [n, d] representations.
        y: [m, d].
        x_labels: [n] numbers or [n, k] vectors (one-hot: two classes lie sqrt(2) apart).
        y_labels: [m] or [m, k].

    Returns:
        [n, m] float64, for `transport_exact`.

    Raises:
        UserError: sizes or widths that disagree, non-finite numbers.

    >>> print(labelled_cost([[0.0]], [[3.0]], [0], [1]))
    [[4.]]
    """
    x, y = point_pair(x, y)
    labels = points("x_labels", x_labels), points("y_labels", y_labels)
    if labels[0].shape[1] != labels[1].shape[1]:
        raise UserError("x_labels, y_labels: must have one width")
    if (len(labels[0]), len(labels[1])) != (len(x), len(y)):
        raise UserError(
            f"labels: {len(labels[0])} and {len(labels[1])} must be as many as the points, "
            f"{len(x)} and {len(y)}"
        )
    return scipy_distance.cdist(x, y) + scipy_distance.cdist(*labels)


def sliced_wasserstein(x: Numbers, y: Numbers, directions: Numbers) -> Result:
    """Mean over directions of the exact W1 of the projected samples: a lower value of W1.

    Every slice lies below W1, so the mean is no upper bound.

    Args:
        x: [n, d].
        y: [m, d].
        directions: [d, count], columns of length 1.

    Returns:
        [], unit of the points.

    Raises:
        UserError: widths that disagree, directions that are not of length 1.

    Source: Rabin et al. 2012.

    >>> print(float(sliced_wasserstein([[0.0, 0.0]], [[3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]])))
    3.5
    """
    xp, first, second, unit = arrays(x, y, directions)
    shapes = first.shape, second.shape, unit.shape
    if any(len(s) != 2 for s in shapes) or len({shapes[0][1], shapes[1][1], shapes[2][0]}) > 1:
        raise UserError(
            f"x {first.shape}, y {second.shape}, directions {unit.shape}: "
            "must be [n, d], [m, d], [d, count]"
        )
    if not isinstance(unit, Tracer):
        lengths = np.linalg.norm(np.asarray(unit, np.float64), axis=0)
        if not lengths.size or not np.allclose(lengths, 1, atol=1e-4):
            raise UserError("directions: every column must have length 1, and there must be one")
    return xp.mean(wasserstein_1d((first @ unit).T, (second @ unit).T))


def kantorovich_value(
    first_scores: Numbers, second_scores: Numbers, *, lipschitz: Numbers = 1.0
) -> Result:
    """Critic's value |mean f(x) - mean f(y)| / K: a lower value of W1 of the two samples.

    Args:
        first_scores: f(x_i), [n].
        second_scores: f(y_j), [m].
        lipschitz: K, at least the Lipschitz constant of f; if K is too small, this is a proxy.

    Returns:
        [], unit of the points.

    Raises:
        UserError: K that is not positive.

    Source: Kantorovich-Rubinstein duality.

    >>> print(float(kantorovich_value([0.0, 2.0], [2.0, 4.0], lipschitz=2.0)))
    1.0
    """
    check_positive("lipschitz", lipschitz)
    xp, first, second, constant = arrays(first_scores, second_scores, lipschitz)
    return xp.abs(xp.mean(first) - xp.mean(second)) / constant


def baseline(
    x: Numbers,
    y: Numbers,
    estimate: Callable[[np.ndarray, np.ndarray], float],
    *,
    seed: int,
    draws: int = 4,
) -> float:
    """Mean of an estimator over shuffles of the pooled samples, which then share one law.

    Report it with `estimate(x, y)`: the sizes are the same, the difference in law is gone.

    Args:
        x: [n, d].
        y: [m, d].
        estimate: such as `wasserstein_exact`.
        seed: of the shuffles.
        draws: number of shuffles.

    Returns:
        Unit of the estimator.

    Raises:
        UserError: draws < 1, widths that disagree.

    >>> print(baseline([0.0, 0.0], [0.0, 0.0], wasserstein_exact, seed=0))
    0.0
    """
    check_integer("draws", draws, 1)
    first, second = point_pair(x, y)
    pool, rng = np.concatenate([first, second]), np.random.default_rng(seed)
    shuffles = (rng.permutation(pool) for _ in range(draws))
    return float(np.mean([estimate(s[: len(first)], s[len(first) :]) for s in shuffles]))
