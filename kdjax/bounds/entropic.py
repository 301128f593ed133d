"""The entropic upper value of W1: cheap where an exact plan is not."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ott.geometry import geometry
from ott.solvers import linear
from scipy.spatial import distance as scipy_distance

from kdjax.bounds.backend import Numbers
from kdjax.bounds.points import check_weights, point_pair
from kdjax.bounds.transport import METRICS
from kdjax.types import UserError

__all__ = ["EntropicCost", "wasserstein_entropic"]


class EntropicCost(NamedTuple):
    """Cost of a feasible plan, how far Sinkhorn's own plan was off (L1), whether it converged."""

    value: float
    marginal_error: float
    converged: bool


def wasserstein_entropic(
    x: Numbers,
    y: Numbers,
    a: Numbers | None = None,
    b: Numbers | None = None,
    *,
    epsilon: float,
    metric: str = "euclidean",
    max_iterations: int = 2_000,
) -> EntropicCost:
    """Upper value of the exact transport cost of two samples: sum_ij P_ij c_ij of Sinkhorn's plan.

    The plan is solved by ott in JAX's precision and then moved onto the exact marginals on the
    host in float64, so that the value lies above the exact cost whether Sinkhorn converged or not.

    Args:
        x: [n, d] or [n].
        y: [m, d] or [m].
        a: [n] weights of x, uniform if None.
        b: [m] weights of y.
        epsilon: strength of the entropy, in the unit of the cost; smaller is tighter and slower.
        metric: "euclidean", "sqeuclidean" or "cityblock", as `wasserstein_exact`.
        max_iterations: of Sinkhorn.

    Returns:
        Value in the unit of the cost, error, converged.

    Raises:
        UserError: epsilon <= 0, an unknown metric, bad points or weights.

    Source: Cuturi 2013 (arXiv 1306.0895); rounding of Altschuler et al. 2017 (arXiv 1705.09634),
        algorithm 2.

    >>> print(round(wasserstein_entropic([0.0, 1.0], [1.0, 2.0], epsilon=0.05).value, 3))
    1.0
    """
    if metric not in METRICS:
        raise UserError(f"metric: must be one of {', '.join(METRICS)}, got {metric!r}")
    if not 0 < epsilon < np.inf:
        raise UserError(f"epsilon: must be finite and > 0, got {epsilon:g}")
    if max_iterations < 1:
        raise UserError(f"max_iterations: must be >= 1, got {max_iterations}")
    x, y = point_pair(x, y)
    a, b = check_weights("a", a, len(x)), check_weights("b", b, len(y))
    cost = scipy_distance.cdist(x, y, metric)  # pyright: ignore
    solved = linear.solve(
        geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=epsilon),
        a=jnp.asarray(a),
        b=jnp.asarray(b),
        max_iterations=max_iterations,
    )
    plan = np.nan_to_num(np.asarray(solved.matrix, np.float64))
    off = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    value = float((_feasible(plan, a, b) * cost).sum())
    return EntropicCost(value, float(off), bool(solved.converged))


def _feasible(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The plan scaled below both marginals, plus a product plan of what is then missing."""
    rows = plan.sum(1)
    plan = plan * np.minimum(a / np.where(rows > 0, rows, 1.0), 1.0)[:, None]
    columns = plan.sum(0)
    plan = plan * np.minimum(b / np.where(columns > 0, columns, 1.0), 1.0)
    lacking_a, lacking_b = np.maximum(a - plan.sum(1), 0), np.maximum(b - plan.sum(0), 0)
    total = lacking_a.sum()
    return plan + np.outer(lacking_a, lacking_b) / total if total > 0 else plan
