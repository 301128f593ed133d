"""Rank correlation of students that come in settings: overall, between and within settings.

Students of one setting (a method with its hyperparameters) differ by their seed alone and are
alike, so that intervals draw whole settings with replacement, never single students.
"""

from collections.abc import Hashable, Sequence
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
    x: Sequence[float],
    y: Sequence[float],
    settings: Sequence[Hashable],
    *,
    draws: int,
    seed: int,
    given: Sequence[float] | None = None,
) -> Correlation:
    """Correlate x with y overall, between and within settings.

    Args:
        x: [students].
        y: [students].
        settings: of each student, [students].
        draws: bootstrap draws of settings.
        seed: of the draws.
        given: [students]; then the coefficients are partial: what is left of the ranks' correlation
            when that of both with `given` is taken out.

    Returns:
        Correlation. The intervals are percentiles; they hold for settings like these, on the same
        data.

    Raises:
        UserError: lengths that disagree, fewer than three settings, non-finite numbers.
    """
    check_whole("draws", draws, 1)
    columns = [np.asarray(v, float) for v in (x, y, *([] if given is None else [given]))]
    shapes = {v.shape for v in columns} | {(len(settings),)}
    if len(shapes) > 1:
        raise UserError(f"x, y, settings: lengths {sorted(shapes)} must be one")
    if not all(np.isfinite(v).all() for v in columns):
        raise UserError("x, y: must be finite; leave out the students that diverged")
    names = list(dict.fromkeys(settings))
    if len(names) < 3:
        raise UserError(f"settings: {len(names)}; an interval over settings needs three or more")
    rows = [np.array([at for at, s in enumerate(settings) if s == name]) for name in names]
    means = [np.array([v[at].mean() for at in rows]) for v in columns]
    inner = [_inner_ranks(v, rows) for v in columns]

    def look(draw: np.ndarray) -> tuple[float, float, float]:
        at = np.concatenate([rows[number] for number in draw])
        return (
            _partial([rankdata(v[at]) for v in columns]),
            _partial([rankdata(v[draw]) for v in means]),
            _partial([v[at] for v in inner]),
        )

    rng = np.random.default_rng(seed)
    found = look(np.arange(len(rows)))
    drawn = np.array([look(rng.integers(0, len(rows), len(rows))) for _ in range(draws)])
    known = drawn[:, np.isfinite(drawn).any(axis=0)]
    low, high = (np.full(3, np.nan), np.full(3, np.nan))
    where = np.isfinite(drawn).any(axis=0)
    low[where], high[where] = np.nanquantile(known, (0.025, 0.975), axis=0)
    ends = (tuple(map(float, side)) for side in (found, low, high))
    return Correlation(*zip(*ends, strict=True))


def _inner_ranks(values: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Ranks taken inside each setting, around zero."""
    ranks = np.zeros(len(values))
    for at in rows:
        ranks[at] = rankdata(values[at]) - (len(at) + 1) / 2
    return ranks


def _partial(columns: Sequence[np.ndarray]) -> float:
    """Pearson's coefficient of the first two, given the third if there is one."""
    first, second, *rest = columns
    plain = _pearson(first, second)
    if not rest:
        return plain
    one, two = _pearson(first, rest[0]), _pearson(second, rest[0])
    left = (1 - one**2) * (1 - two**2)
    return (plain - one * two) / left**0.5 if left > 0 else float("nan")


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")
