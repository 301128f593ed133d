"""Exact references for Wasserstein dependency: finite joints, small samples, Gaussian brackets.

I_W(X; Y) = W1(joint, product of its marginals). A critic's estimate of it is a lower value. Host,
float64.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import distance as scipy_distance

from kdjax.bounds._backend import Numbers, check_choice
from kdjax.bounds.transport import transport_exact
from kdjax.errors import UserError

METRICS = ("euclidean", "sum")


class DependencyBracket(NamedTuple):
    """Limits `lower` <= I_W <= `upper`, and the `mutual_information` in nats."""

    lower: float
    upper: float
    mutual_information: float


def dependency_exact(joint: Numbers, x: Numbers, y: Numbers, *, metric: str = "euclidean") -> float:
    """W1 between a finite joint law and the product of its marginals, by linear programme.

    The distance of (x, y) and (x', y') is sqrt(|x - x'|^2 + |y - y'|^2) ("euclidean", the product
    L2 metric) or |x - x'| + |y - y'| ("sum").

    Args:
      joint: [n, m] probabilities.
      x: [n, d] positions of the rows.
      y: [m, e] positions of the columns.
      metric: "euclidean" or "sum".

    Returns:
      Exact, in the unit of the metric.

    Raises:
      UserError: `joint` is no distribution, or sizes differ; an unknown metric; more than 1,000
        cells.

    >>> print(round(dependency_exact([[0.5, 0], [0, 0.5]], [[0.0], [1.0]], [[0.0], [1.0]]), 6))
    0.5
    """
    table, product = _laws(joint)
    x, y = _points("x", x, table.shape[0]), _points("y", y, table.shape[1])
    check_choice("metric", metric, METRICS)
    rows, columns = (index.ravel() for index in np.indices(table.shape))
    cost_x = scipy_distance.cdist(x, x)[np.ix_(rows, rows)]
    cost_y = scipy_distance.cdist(y, y)[np.ix_(columns, columns)]
    cost = cost_x + cost_y if metric == "sum" else np.hypot(cost_x, cost_y)
    return transport_exact(cost, table.ravel(), product.ravel())


def dependency_total_variation(joint: Numbers) -> float:
    """Dependency under the 0-1 metric: half the L1 distance of joint and product, at most 1.

    For X = Y uniform on m symbols it is 1 - 1/m.

    Returns:
      Exact, in [0, 1].

    Raises:
      UserError: `joint` is no distribution.

    >>> dependency_total_variation([[0.25, 0], [0, 0.75]])
    0.375
    """
    table, product = _laws(joint)
    return 0.5 * float(np.abs(table - product).sum())


def dependency_of_sample(x: Numbers, y: Numbers) -> float:
    """W1 between n pairs and all n^2 pairs of their sides, product L2 metric, exact.

    It is the largest dual value of a 1-Lipschitz critic on this batch. It is > 0 also for
    independent sides: the sample's bias falls as n^(-1 / dimension).

    Args:
      x: [n, d].
      y: [n, e].

    Returns:
      Unit of x and y.

    Raises:
      UserError: different lengths, fewer than two pairs, more than 100 (a programme of n^3 cells).

    >>> print(round(dependency_of_sample([[0.0], [1.0]], [[0.0], [1.0]]), 6))
    0.5
    """
    first = np.asarray(x, np.float64)
    count = len(first) if first.ndim else 0
    x, y = _points("x", x, count), _points("y", y, count)
    if not 2 <= count <= 100:
        raise UserError(f"x: {count} pairs; the exact programme takes 2 to 100")
    pairs = np.concatenate([x, y], axis=1)
    grid = np.concatenate([np.repeat(x, count, axis=0), np.tile(y, (count, 1))], axis=1)
    uniform = np.full(count, 1 / count), np.full(count**2, 1 / count**2)
    return transport_exact(scipy_distance.cdist(pairs, grid), *uniform)


def gaussian_dependency_bracket(correlation: float) -> DependencyBracket:
    """Bracket the dependency of a bivariate unit Gaussian under the product L2 metric.

    sqrt(2/pi) (1 - sqrt(1-r)) <= I_W <= sqrt((sqrt(1+r) - 1)^2 + (sqrt(1-r) - 1)^2), r >= 0; the
    upper one is W2. It stays below 1.09 while the mutual information -ln(1 - r^2)/2 grows without
    limit.

    Args:
      correlation: r; its sign does not matter.

    Returns:
      DependencyBracket, exact limits in the unit of X and Y.

    Raises:
      UserError: |r| >= 1.

    Source: the lower value is that of the direction (1, -1), reconstruction.

    >>> [round(value, 3) for value in gaussian_dependency_bracket(0.999)]
    [0.773, 1.053, 3.108]
    """
    r = abs(float(correlation))
    if not r < 1:
        raise UserError(f"correlation: must lie in (-1, 1), got {correlation:g}")
    minor, major = math.sqrt(1 - r), math.sqrt(1 + r)  # semi-axes of the joint's covariance
    return DependencyBracket(
        lower=math.sqrt(2 / math.pi) * (1 - minor),
        upper=math.hypot(major - 1, minor - 1),
        mutual_information=-0.5 * math.log1p(-r * r),
    )


def _laws(joint: Numbers) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(joint, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise UserError(f"joint: shape {table.shape} must be [n, m]")
    if not np.all(table >= 0) or abs(table.sum() - 1) > 1e-6:
        raise UserError("joint: must be probabilities >= 0 that sum to 1")
    table = table / table.sum()
    return table, np.outer(table.sum(1), table.sum(0))


def _points(name: str, values: Numbers, count: int) -> np.ndarray:
    points = np.asarray(values, np.float64)
    if points.ndim != 2 or len(points) != count or not np.isfinite(points).all():
        raise UserError(f"{name}: must be {count} finite points [{count}, d], got {points.shape}")
    return points
