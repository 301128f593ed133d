"""How the numbers of a report are written: which metric in which unit, with how many decimals."""

import math
from typing import Any, NamedTuple

from kdjax.report.statistics import Mean

__all__ = ["COLUMNS", "Column", "column_of", "format_mean", "format_value"]


class Column(NamedTuple):
    """How a metric is shown: `scale` times the value, with `digits` decimals.

    `sign` is +1 or -1 where more or less of it is better. It is 0 where neither is, and for
    calibration errors, which a network that guesses can have near zero: none is marked as best.
    """

    metric: str
    title: str
    scale: float
    digits: int
    sign: int


COLUMNS = (
    Column("accuracy", "accuracy %", 100.0, 2, +1),
    Column("probe_accuracy", "probe accuracy %", 100.0, 2, +1),
    Column("ap50", "AP50 %", 100.0, 2, +1),
    Column("ap", "AP %", 100.0, 2, +1),
    Column("ap75", "AP75 %", 100.0, 2, +1),
    Column("ap_small", "AP small %", 100.0, 2, +1),
    Column("ap_medium", "AP medium %", 100.0, 2, +1),
    Column("ap_large", "AP large %", 100.0, 2, +1),
    Column("f1", "F1 %", 100.0, 2, +1),
    Column("macro_f1", "macro F1 %", 100.0, 2, +1),
    Column("exact_match", "exact match %", 100.0, 2, +1),
    Column("matthews", "Matthews", 1.0, 3, +1),
    Column("pearson", "Pearson", 1.0, 3, +1),
    Column("spearman", "Spearman", 1.0, 3, +1),
    Column("mse", "MSE", 1.0, 3, -1),
    Column("ece", "ECE %", 100.0, 2, 0),
    Column("detection_ece", "detection ECE %", 100.0, 2, 0),
    Column("nll", "NLL", 1.0, 3, -1),
    Column("brier", "Brier", 1.0, 3, -1),
    Column("temperature", "fitted T", 1.0, 2, 0),
    Column("ece_calibrated", "ECE % at T", 100.0, 2, 0),
)


def column_of(metric: str) -> Column:
    """Say how a metric is shown; an unknown one with its own name and four decimals."""
    known = {column.metric: column for column in COLUMNS}
    return known.get(metric, Column(metric, metric, 1.0, 4, +1))


def format_mean(value: Mean, column: Column) -> str:
    """Write "96.12 ± 0.31", without the sd for one seed, and a dash for nothing finite."""
    if value.n == 0:
        return "-"
    text = f"{column.scale * value.mean:.{column.digits}f}"
    if math.isnan(value.sd):
        return text
    return f"{text} ± {column.scale * value.sd:.{column.digits}f}"


def format_value(value: Any) -> str:
    """Write a swept value shortly: 0.01, 4, adamw."""
    return f"{value:g}" if isinstance(value, float) else str(value)
