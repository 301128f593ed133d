"""Checked inputs of the host-side estimators: samples, weights, tables of costs."""

from typing import Any

import numpy as np

from kdjax.errors import UserError

_TOLERANCE = 1e-5  # of the sum of float32 weights


def points(name: str, value: Any) -> np.ndarray:
    """Return finite samples as float64 [n, d]; [n] counts as [n, 1]."""
    array = np.asarray(value, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{name}: shape {array.shape} must be [samples, width], not empty")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise UserError(f"{name}: row {row} is not finite; remove it or train without divergence")
    return array


def point_pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two samples of one width as float64 [n, d] and [m, d]."""
    first, second = points("x", x), points("y", y)
    if first.shape[1] != second.shape[1]:
        raise UserError(f"x, y: widths {first.shape[1]} and {second.shape[1]} must be equal")
    return first, second


def check_weights(name: str, value: Any, count: int) -> np.ndarray:
    """Return weights as float64 [count] that sum to 1; None is uniform."""
    if value is None:
        return np.full(count, 1 / count)
    array = np.asarray(value, np.float64)
    if array.shape != (count,):
        raise UserError(f"{name}: shape {array.shape} must be ({count},), a weight a sample")
    total = array.sum()
    if not np.isfinite(total) or array.min() < 0 or abs(total - 1) > _TOLERANCE:
        raise UserError(
            f"{name}: weights must be >= 0 and sum to 1, got least {array.min():g}, sum {total:g}"
        )
    return array / total


def check_costs(cost: Any, axes: str, ranks: tuple[int, ...]) -> np.ndarray:
    """Return finite costs >= 0 as float64; `axes` are those of the allowed `ranks`."""
    table = np.asarray(cost, np.float64)
    if table.ndim not in ranks or table.size == 0:
        raise UserError(f"cost: shape {table.shape} must be {axes}, not empty")
    if not np.isfinite(table).all() or table.min() < 0:
        raise UserError(f"cost: must be finite and >= 0, its least entry is {table.min():g}")
    return table


def check_neighbours(k: int, available: int, samples: str) -> None:
    """Refuse a number of neighbours that is not in [1, available]."""
    if not 1 <= k <= available:
        raise UserError(f"k: must lie in [1, {available}] for {samples}, got {k}")
