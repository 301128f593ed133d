"""A study's numbers as tables and as one figure; their form: `bounds.studies.results`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kdjax.report.figure_style import styles, svg
from kdjax.report.table import Table

__all__ = ["study_figure", "study_tables"]

Found = Mapping[str, Any]

_COLUMNS = 2
_PANEL = (4.9, 3.9)  # inches


def study_tables(found: Found) -> list[Table]:
    """Turn sheets into tables; numbers with four digits."""
    return [
        Table(
            title=sheet["title"],
            header=tuple(sheet["header"]),
            rows=tuple(tuple(_cell(value) for value in row) for row in sheet["rows"]),
            text_columns=sheet["words"],
            notes=tuple(sheet["notes"]),
        )
        for sheet in found["sheets"]
    ]


def study_figure(found: Found) -> str:
    """Draw all panels as one SVG: a colour a curve, the same in every panel; dashed: no bound."""
    panels = found["panels"]
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["lines"]))
    looks = styles({"variants": [{"name": name} for name in names]})
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, looks)
        handles = {label: h for a in grid.flat for h, label in zip(*_named(a), strict=True)}
        if len(handles) > 1:
            where = {"loc": "outside lower center", "ncols": 2 * columns, "handlelength": 2.4}
            figure.legend(list(handles.values()), list(handles), **where)

    width = _PANEL[0] if columns > 1 else 1.6 * _PANEL[0]
    return svg(draw, found["title"], (columns * width, rows * _PANEL[1]))


def _draw(axes: Axes, panel: Found, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for line in panel["lines"]:
        look = looks[line["name"]]
        bound = line["kind"] == "upper bound"
        dash = ("-" if bound else "--") if line["joined"] else "none"
        # A cloud has no direction to tell; a zero-width space saves names that begin with "_".
        told = "" if bound or not line["joined"] else f" ({line['kind']})"
        label = f"\u200b{line['name']}{told}"
        style = {"color": look["color"], "marker": look["marker"], "ms": 4, "linestyle": dash}
        x, y = np.asarray(line["x"], float), np.asarray(line["y"], float)
        if len(line["error"]):
            axes.errorbar(x, y, yerr=line["error"], elinewidth=0.8, label=label, **style)
        else:
            axes.plot(x, y, label=label, **style)
    axes.set_title(panel["title"])
    axes.set_xlabel(panel["x"])
    axes.set_ylabel(panel["y"])
    if "y" in panel["log"]:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    if panel["ticks"]:
        long = max(map(len, panel["ticks"])) > 9
        turned = {"rotation": 30, "ha": "right"} if long else {}
        axes.set_xticks(range(len(panel["ticks"])), panel["ticks"], **turned)
    elif "x" in panel["log"]:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=_whole(panel)))


def _named(axes: Axes) -> tuple[list[Any], list[str]]:
    return axes.get_legend_handles_labels()


def _whole(panel: Found) -> bool:
    """Whether every place on the x axis is a whole number, so that fractions are no ticks."""
    return all(float(x).is_integer() for line in panel["lines"] for x in line["x"])


def _plain_numbers(axis: Any) -> None:
    """Write 0.01 and 20 instead of powers; label 2 and 5 of a decade where decades are few."""
    low, high = sorted(axis.get_view_interval())
    wide = low > 0 and high / low > 300
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    between = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axis.set_minor_formatter(NullFormatter() if wide else between)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
