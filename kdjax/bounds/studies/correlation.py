"""Rank correlation of students grouped by settings: overall, between and within settings.

Students of one setting (a method with its hyperparameters) differ only by their seed and are
correlated, so the bootstrap resamples settings, not single students.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from kdjax.bounds._backend import check_integer
from kdjax.bounds.studies.results import Values
from kdjax.errors import UserError

_LEAST_SETTINGS = 6  # for an interval: bootstrap draws of fewer repeat a few values


class Interval(NamedTuple):
    """A coefficient and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Correlation(NamedTuple):
    """Spearman's coefficients with intervals; undefined ones are NaN.

    `overall` of all students; `between` of the settings' means; `within` of ranks taken inside
    each setting, pooled.
    """

    overall: Interval
    between: Interval
    within: Interval


def spearman(x: Values, y: Values) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN if either is constant.

    >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 4]), 6)
    0.8
    """
    return float(_with_last(rankdata([x, y], axis=1), partial=False)[0])


def spearman_by_setting(
    columns: Mapping[str, Values],
    y: Values,
    settings: Sequence[Hashable],
    *,
    draws: int,
    seed: int,
    control: Values | None = None,
) -> dict[str, Correlation]:
    """Correlate columns with y overall, between and within settings.

    Args:
        columns: name -> [students].
        y: [students].
        settings: of each student, [students].
        draws: bootstrap draws of settings, the same for all columns.
        seed: of the draws.
        control: [students]; makes the coefficients partial: correlations of the ranks with those of
            `control` regressed out.

    Returns:
        A Correlation for each column. The intervals are percentiles; they are valid for similar
        settings on the same data, and NaN for fewer than six settings.

    Raises:
        UserError: different lengths, fewer than three settings, non-finite numbers.
    """
    check_integer("draws", draws, 1)
    partial = control is not None
    variables = [*columns.values(), *([control] if partial else []), y]
    lengths = {len(values) for values in (*variables, settings)}
    if len(lengths) > 1:
        raise UserError(f"columns, y, settings: lengths {sorted(lengths)} must be one")
    table = np.array(variables, float)
    if not np.isfinite(table).all():
        raise UserError("columns, y: must be finite; leave out the students that diverged")
    names = list(dict.fromkeys(settings))
    if len(names) < 3:
        raise UserError(f"settings: {len(names)}; an interval over settings needs three or more")
    groups = [np.array([i for i, s in enumerate(settings) if s == name]) for name in names]
    means = np.stack([table[:, group].mean(axis=1) for group in groups], axis=1)
    within = np.zeros_like(table)
    for group in groups:
        within[:, group] = rankdata(table[:, group], axis=1) - (len(group) + 1) / 2

    def coefficients(draw: np.ndarray) -> np.ndarray:
        rows = np.concatenate([groups[number] for number in draw])
        ranks = (rankdata(table[:, rows], axis=1), rankdata(means[:, draw], axis=1))
        return np.stack([_with_last(r, partial=partial) for r in (*ranks, within[:, rows])], axis=1)

    rng = np.random.default_rng(seed)
    values = coefficients(np.arange(len(groups)))  # [columns, 3]
    count = len(groups)
    drawn = np.full((1, *values.shape), np.nan)
    if count >= _LEAST_SETTINGS:
        drawn = np.array([coefficients(rng.integers(0, count, count)) for _ in range(draws)])
    return {
        name: Correlation(*map(_interval, values[number], drawn[:, number].T))
        for number, name in enumerate(columns)
    }


def _interval(value: float, drawn: np.ndarray) -> Interval:
    """Return a coefficient with its interval, from the draws in which it is defined."""
    defined = drawn[np.isfinite(drawn)]
    low, high = np.quantile(defined, (0.025, 0.975)) if defined.size else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def _with_last(ranks: np.ndarray, *, partial: bool) -> np.ndarray:
    """Correlate every row with the last one, controlling for the last but one if `partial`."""
    with np.errstate(invalid="ignore", divide="ignore"):  # constant rows have no correlation
        table = np.corrcoef(ranks)
        if not partial:
            return table[:-1, -1]
        with_control, control = table[:-2, -2], table[-1, -2]
        residual = np.sqrt((1 - with_control**2) * (1 - control**2))
        return (table[:-2, -1] - with_control * control) / residual
