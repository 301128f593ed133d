"""The tables and the figure of a study, from the content of its study.json."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kdjax.report.figure_style import plain_label, sparse_label, styles, svg
from kdjax.report.table import Table

_COLUMNS = 2
_PANEL = (4.9, 3.9)  # inches


def study_tables(study: Mapping[str, Any]) -> list[Table]:
    """Return all tables, with numbers rounded to four digits."""
    return [
        Table(
            title=sheet["title"],
            header=tuple(sheet["header"]),
            rows=tuple(
                tuple(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row)
                for row in sheet["rows"]
            ),
            text_columns=sheet["words"],
            notes=tuple(sheet["notes"]),
        )
        for sheet in study["sheets"]
    ]


def study_figure(study: Mapping[str, Any]) -> str:
    """Draw all panels as one SVG; each curve has its own colour, and is dashed if no bound."""
    panels = study["panels"]
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["lines"]))
    curve_styles = styles(names)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, curve_styles)
        handles = {
            label: handle
            for axes in grid.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if len(handles) > 1:
            place = {"loc": "outside lower center", "ncols": 2 * columns, "handlelength": 2.4}
            figure.legend(list(handles.values()), list(handles), **place)

    width = _PANEL[0] if columns > 1 else 1.6 * _PANEL[0]
    return svg(draw, study["title"], (columns * width, rows * _PANEL[1]))


def _draw(
    axes: Axes, panel: Mapping[str, Any], curve_styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for line in panel["lines"]:
        style = {**curve_styles[line["name"]], "ms": 4}
        is_bound = line["kind"] == "upper bound"
        style["linestyle"] = ("-" if is_bound else "--") if line["joined"] else "none"
        # matplotlib omits labels that begin with an underscore: put a zero-width space first.
        label = f"\u200b{line['name']}"
        if line["joined"] and not is_bound:
            label += f" ({line['kind']})"
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
        has_long = max(map(len, panel["ticks"])) > 9
        rotated = {"rotation": 30, "ha": "right"} if has_long else {}
        axes.set_xticks(range(len(panel["ticks"])), panel["ticks"], **rotated)
    elif "x" in panel["log"]:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    else:
        has_only_integers = all(float(x).is_integer() for line in panel["lines"] for x in line["x"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=has_only_integers))


def _plain_numbers(axis: Any) -> None:
    """Format ticks as 0.01 and 20 instead of powers; over few decades, also label 2 and 5."""
    low, high = sorted(axis.get_view_interval())
    wide = low > 0 and high / low > 300
    axis.set_major_formatter(FuncFormatter(plain_label))
    axis.set_minor_formatter(NullFormatter() if wide else FuncFormatter(sparse_label))
