"""Entropic upper value of W1, for samples where an exact plan is too expensive."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import geometry
from ott.solvers import linear
from scipy.spatial import distance as scipy_distance

from kdjax.bounds._backend import Numbers, check_choice, check_integer, check_positive
from kdjax.bounds._samples import check_costs, check_weights, point_pair
from kdjax.bounds.transport import METRICS
from kdjax.types import Array


class EntropicCost(NamedTuple):
    """Cost of a feasible plan, L1 error of the marginals of Sinkhorn's plan, and its convergence.

    Numbers for one table of costs, [tables] for several.
    """

    value: Any
    marginal_error: Any
    converged: Any


def wasserstein_entropic(
    x: Numbers,
    y: Numbers,
    a: Numbers | None = None,
    b: Numbers | None = None,
    *,
    epsilon: float,
    metric: str = "euclidean",
    max_iterations: int = 2_000,
    threshold: float = 1e-3,
) -> EntropicCost:
    """Upper value of the exact transport cost of two samples: sum_ij P_ij c_ij of Sinkhorn's plan.

    Samples, weights and metric are those of `wasserstein_exact`; other arguments, result and
    errors as in `transport_entropic`. A smaller `epsilon` is tighter and slower.

    >>> print(round(wasserstein_entropic([0.0, 1.0], [1.0, 2.0], epsilon=0.05).value, 3))
    1.0
    """
    check_choice("metric", metric, METRICS)
    x, y = point_pair(x, y)
    cost = scipy_distance.cdist(x, y, metric)  # pyright: ignore
    return transport_entropic(
        cost, a, b, epsilon=epsilon, max_iterations=max_iterations, threshold=threshold
    )


def transport_entropic(
    cost: Numbers,
    a: Numbers | None = None,
    b: Numbers | None = None,
    *,
    epsilon: Numbers,
    max_iterations: int = 2_000,
    threshold: float = 1e-3,
    log_domain: bool = True,
) -> EntropicCost:
    """Upper value of the exact transport cost of tables of costs: sum_ij P_ij c_ij, P Sinkhorn's.

    ott solves the plans in JAX's precision, all tables in one compiled call; the host then moves
    them onto the exact marginals in float64, so that the value lies above the exact cost even if
    Sinkhorn did not converge.

    Args:
        cost: [n, m], or [tables, n, m], finite and >= 0.
        a: [n] weights of the rows of every table, uniform if None.
        b: [m] weights of the columns.
        epsilon: strength of the entropy, in the unit of the cost; one number, or [tables].
        max_iterations: of Sinkhorn.
        threshold: L1 error of the marginals at which it stops.
        log_domain: False multiplies by exp(-cost / epsilon) instead of adding logarithms, and gives
            the value of independent samples once these underflow, in float32 from cost / epsilon =
            80 on.

    Returns:
        Value in the unit of the cost, error, converged: numbers, or [tables] each.

    Raises:
        UserError: epsilon <= 0, another rank, costs that are negative or not finite, weights that
            are not a distribution.

    Source: Cuturi 2013 (arXiv 1306.0895); rounding of Altschuler et al. 2017 (arXiv 1705.09634),
        algorithm 2.

    >>> print(round(transport_entropic([[0.0, 2.0], [2.0, 0.0]], epsilon=0.1).value, 3))
    0.0
    """
    table = check_costs(cost, "[n, m] or [tables, n, m]", (2, 3))
    check_positive("epsilon", epsilon)
    check_integer("max_iterations", max_iterations, 1)
    first, second = (
        check_weights(name, weights, size)
        for name, weights, size in (("a", a, table.shape[-2]), ("b", b, table.shape[-1]))
    )
    tables = table.reshape(-1, *table.shape[-2:])
    plans, converged = _solve(
        jnp.asarray(tables),
        jnp.asarray(np.broadcast_to(np.asarray(epsilon, np.float64), len(tables))),
        (jnp.asarray(first), jnp.asarray(second)),
        max_iterations,
        threshold,
        log_domain,
    )
    rounded = [
        _rounded(*pair, first, second) for pair in zip(tables, np.asarray(plans), strict=True)
    ]
    value, error = np.array(rounded).T
    if table.ndim == 2:
        return EntropicCost(float(value[0]), float(error[0]), bool(converged[0]))
    return EntropicCost(value, error, np.asarray(converged))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _solve(
    costs: Array,
    epsilon: Array,
    marginals: tuple[Array, Array],
    max_iterations: int,
    threshold: float,
    log_domain: bool,
) -> tuple[Array, Array]:
    """Return Sinkhorn's plan of every table and if it converged."""
    a, b = marginals

    def solve(cost: Array, strength: Array) -> tuple[Array, Array]:
        solution = linear.solve(
            geometry.Geometry(cost_matrix=cost, epsilon=strength),  # pyright: ignore[reportArgumentType]
            a=a,
            b=b,
            max_iterations=max_iterations,
            threshold=threshold,
            lse_mode=log_domain,
        )
        return solution.matrix, jnp.asarray(solution.converged)

    return jax.vmap(solve)(costs, epsilon)


def _rounded(
    cost: np.ndarray, plan: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[float, float]:
    """Return the cost of the plan made feasible, and the L1 error of its marginals before."""
    plan = np.nan_to_num(np.asarray(plan, np.float64), posinf=0.0)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    return float((_feasible(plan, a, b) * cost).sum()), float(error)


def _feasible(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scale the plan below both marginals and add a product plan of the missing mass."""
    rows = plan.sum(1)
    plan = plan * np.minimum(a / np.where(rows > 0, rows, 1.0), 1.0)[:, None]
    columns = plan.sum(0)
    plan = plan * np.minimum(b / np.where(columns > 0, columns, 1.0), 1.0)
    missing_a, missing_b = np.maximum(a - plan.sum(1), 0), np.maximum(b - plan.sum(0), 0)
    total = missing_a.sum()
    return plan + np.outer(missing_a, missing_b) / total if total > 0 else plan
