"""What a study came to: numbers in panels and sheets, which JSON can hold and a report can draw."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Line", "Panel", "Sheet", "Study", "plain"]

Value = float | int | str


class Line(NamedTuple):
    """One curve: `kind` is what its values are, "upper bound", "exact", "estimate", "proxy", ...

    `error`: standard errors, empty if there are none; `joined`: False for a cloud of points.
    """

    name: str
    kind: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] = ()
    joined: bool = True


class Panel(NamedTuple):
    """Axes with their curves; `log` names the axes with a logarithmic scale, "x", "y", "xy".

    `ticks`: names of the whole numbers 0, 1, ... on the x axis.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: str = ""
    ticks: Sequence[str] = ()


class Sheet(NamedTuple):
    """A table of values; the first `words` columns are no numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Value]]
    words: int = 1
    notes: Sequence[str] = ()


class Study(NamedTuple):
    """Panels and sheets under a title; `broken` names every inequality that does not hold."""

    title: str
    panels: Sequence[Panel]
    sheets: Sequence[Sheet]
    broken: Sequence[str] = ()


def plain(value: Any) -> Any:
    """Turn a study into what JSON holds: dicts, lists, Python's numbers and words.

    >>> plain(Line("gen", "exact", (1,), (0.5,)))["y"]
    [0.5]
    """
    if isinstance(value, Line | Panel | Sheet | Study):
        return {key: plain(part) for key, part in value._asdict().items()}
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence):
        return [plain(part) for part in value]
    return float(value)
