"""Rank correlation of students that come in settings: overall, between and within settings.

Students of one setting (a method with its hyperparameters) differ by their seed alone and are
alike, so that intervals draw whole settings with replacement, never single students.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from kdjax.bounds.backend import check_whole
from kdjax.types import UserError

__all__ = ["Correlation", "spearman", "spearman_by_setting"]


class Correlation(NamedTuple):
    """Spearman's coefficients, each with the ends of its 95 % interval.

    `overall` of all students; `between` of the settings' means; `within` of ranks taken inside
    each setting, pooled. NaN where it is not defined.
    """

    overall: tuple[float, float, float]
    between: tuple[float, float, float]
    within: tuple[float, float, float]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN if either does not vary.

    >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 4]), 6)
    0.8
    """
    return _pearson(rankdata(x), rankdata(y))


def spearman_by_setting(
    x: Sequence[float], y: Sequence[float], settings: Sequence[Hashable], *, draws: int, seed: int
) -> Correlation:
    """Correlate x with y overall, between and within settings.

    Args:
        x: [students].
        y: [students].
        settings: of each student, [students].
        draws: bootstrap draws of settings.
        seed: of the draws.

    Returns:
        Correlation. The intervals are percentiles; they hold for settings like these, on the same
        data.

    Raises:
        UserError: lengths that disagree, fewer than three settings, non-finite numbers.
    """
    check_whole("draws", draws, 1)
    a, b = np.asarray(x, float), np.asarray(y, float)
    if not a.shape == b.shape == (len(settings),):
        raise UserError(f"x {a.shape}, y {b.shape}, settings {len(settings)}: must be one length")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("x, y: must be finite; leave out the students that diverged")
    names = list(dict.fromkeys(settings))
    if len(names) < 3:
        raise UserError(f"settings: {len(names)}; an interval over settings needs three or more")
    rows = [np.array([at for at, s in enumerate(settings) if s == name]) for name in names]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(rows), len(rows)) for _ in range(draws)]
    return Correlation(*(
        _interval(rows, drawn, a, b, how)
        for how in (_overall, _between, _within)
    ))  # fmt: skip


def _interval(
    rows: list[np.ndarray],
    drawn: Sequence[np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    how: Callable[[list[np.ndarray], np.ndarray, np.ndarray], float],
) -> tuple[float, float, float]:
    values = [how([rows[at] for at in draw], a, b) for draw in drawn]
    known = [value for value in values if not np.isnan(value)]
    ends = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
    return float(how(rows, a, b)), float(ends[0]), float(ends[1])


def _overall(rows: list[np.ndarray], a: np.ndarray, b: np.ndarray) -> float:
    at = np.concatenate(rows)
    return spearman(a[at], b[at])


def _between(rows: list[np.ndarray], a: np.ndarray, b: np.ndarray) -> float:
    return spearman([a[at].mean() for at in rows], [b[at].mean() for at in rows])


def _within(rows: list[np.ndarray], a: np.ndarray, b: np.ndarray) -> float:
    ranks = [
        np.concatenate([rankdata(values[at]) - (len(at) + 1) / 2 for at in rows])
        for values in (a, b)
    ]
    return _pearson(*ranks)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")
