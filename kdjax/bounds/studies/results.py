"""Results of a study: numbers in panels and tables, as JSON and for the figures of a report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.bounds.inequalities import Inequality

Value = float | int | str
Values = Sequence[float | int] | np.ndarray


class Line(NamedTuple):
    """One curve: `kind` is that of its values, "upper bound", "exact", "estimate", "proxy", ...

    `error`: standard errors, empty if there are none; `joined`: False for a cloud of points.
    """

    name: str
    kind: str
    x: Values
    y: Values
    error: Values = ()
    joined: bool = True


class Panel(NamedTuple):
    """Axes with their curves; `log` names the axes with a logarithmic scale, "x", "y", "xy".

    `ticks`: names of the integers 0, 1, ... on the x axis.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: str = ""
    ticks: Sequence[str] = ()


class Table(NamedTuple):
    """A table of values; the first `words` columns hold text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Value]]
    words: int = 1
    notes: Sequence[str] = ()


class StudyResult(NamedTuple):
    """Panels and tables under a title; `broken` names every inequality that does not hold."""

    title: str
    panels: Sequence[Panel]
    sheets: Sequence[Table]
    broken: Sequence[str] = ()


def as_json(value: Any) -> Any:
    """Convert a result to the types of JSON: dicts, lists, numbers and strings.

    >>> as_json(Line("gen", "exact", (1,), (0.5,)))["y"]
    [0.5]
    """
    if isinstance(value, Line | Panel | Table | StudyResult):
        return {key: as_json(part) for key, part in value._asdict().items()}
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence):
        return [as_json(part) for part in value]
    return float(value)


def _value_of(rows: Sequence[Inequality], name: str) -> float:
    return next(row.value for row in rows if row.name == name)


def inequality_line(
    name: str, kind: str, x: Values, chains: Sequence[Sequence[Inequality]]
) -> Line:
    """Draw the row `name` of several chains against x."""
    values = [_value_of(rows, name) for rows in chains]
    return Line("gen" if name == "|gen|" else name, kind, x, values)


def inequality_rows(
    chains: Sequence[tuple[str, Sequence[Inequality]]], names: Sequence[str]
) -> list[tuple[Value, ...]]:
    """Tabulate the rows `names` of several named chains, and if all of a chain's rows hold."""
    return [
        (
            chain,
            *(_value_of(rows, name) for name in names),
            "held" if all(row.holds for row in rows) else "VIOLATED",
        )
        for chain, rows in chains
    ]
