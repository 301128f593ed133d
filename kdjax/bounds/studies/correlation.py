"""Rank correlation of students that come in settings: overall, between and within settings.

Students of one setting (a method with its hyperparameters) differ by their seed alone and are
alike, so that intervals draw whole settings with replacement, never single students.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from kdjax.bounds._backend import check_whole
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
    return float(_with_last(rankdata([x, y], axis=1), partial=False)[0])


def spearman_by_setting(
    columns: Mapping[str, Sequence[float]],
    y: Sequence[float],
    settings: Sequence[Hashable],
    *,
    draws: int,
    seed: int,
    given: Sequence[float] | None = None,
) -> dict[str, Correlation]:
    """Correlate columns with y overall, between and within settings.

    Args:
        columns: name -> [students].
        y: [students].
        settings: of each student, [students].
        draws: bootstrap draws of settings, the same for all columns.
        seed: of the draws.
        given: [students]; then the coefficients are partial: what is left of the ranks' correlation
            when that of both with `given` is taken out.

    Returns:
        A Correlation a column. The intervals are percentiles; they hold for settings like these, on
        the same data.

    Raises:
        UserError: lengths that disagree, fewer than three settings, non-finite numbers.
    """
    check_whole("draws", draws, 1)
    partial = given is not None
    lines = [*columns.values(), *([given] if partial else []), y]
    lengths = {len(line) for line in (*lines, settings)}
    if len(lengths) > 1:
        raise UserError(f"columns, y, settings: lengths {sorted(lengths)} must be one")
    table = np.array(lines, float)
    if not np.isfinite(table).all():
        raise UserError("columns, y: must be finite; leave out the students that diverged")
    names = list(dict.fromkeys(settings))
    if len(names) < 3:
        raise UserError(f"settings: {len(names)}; an interval over settings needs three or more")
    rows = [np.array([at for at, s in enumerate(settings) if s == name]) for name in names]
    means = np.stack([table[:, at].mean(axis=1) for at in rows], axis=1)
    inner = np.zeros_like(table)
    for at in rows:
        inner[:, at] = rankdata(table[:, at], axis=1) - (len(at) + 1) / 2

    def look(draw: np.ndarray) -> np.ndarray:
        at = np.concatenate([rows[number] for number in draw])
        ranks = (rankdata(table[:, at], axis=1), rankdata(means[:, draw], axis=1), inner[:, at])
        return np.stack([_with_last(r, partial=partial) for r in ranks], axis=1)

    rng = np.random.default_rng(seed)
    found = look(np.arange(len(rows)))  # [columns, 3]
    drawn = np.array([look(rng.integers(0, len(rows), len(rows))) for _ in range(draws)])
    return {
        name: Correlation(*map(_with_ends, found[number], drawn[:, number].T))
        for number, name in enumerate(columns)
    }


def _with_ends(value: float, drawn: np.ndarray) -> tuple[float, float, float]:
    """A coefficient and the ends of its interval; draws in which it is not defined say nothing."""
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if known.size else (np.nan, np.nan)
    return float(value), float(low), float(high)


def _with_last(ranks: np.ndarray, *, partial: bool) -> np.ndarray:
    """Correlation of every line with the last one, given the last but one if `partial`."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a line that does not vary has none
        table = np.corrcoef(ranks)
        if not partial:
            return table[:-1, -1]
        one, two = table[:-2, -2], table[-1, -2]
        return (table[:-2, -1] - one * two) / np.sqrt((1 - one**2) * (1 - two**2))
