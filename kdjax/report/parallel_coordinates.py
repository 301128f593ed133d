"""Parallel coordinates of a sweep: one line a member, through its swept values and its metric."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdjax.report.figure_style import svg
from kdjax.report.metric_format import column_of, format_value
from kdjax.report.results import VariantResult
from kdjax.report.statistics import chosen_members, member_score, number, short_names, swept_paths

_CHOSEN, _DROPPED = "#D55E00", "#999999"
_MAX_TICKS = 6  # an axis with more different values has labels at its ends and at its middle


def parallel_coordinates(
    variant: VariantResult, role: str, metric: str, title: str, *, split: str = "validation"
) -> str | None:
    """Draw the members of a sweep over two or more paths as lines through one axis a path.

    The last axis is `<role>/<metric>`, and the colour is darker where it is lower. Chosen members
    are thick and orange. Dropped members are dashed, with their metric when they were dropped.

    Returns:
      An SVG, or None for fewer than two swept paths, or if no value is finite.
    """
    paths, column = swept_paths(variant), column_of(metric)
    scores = {m.member: member_score(m, f"{role}/{metric}", split) for m in variant.members}
    members = [m for m in variant.members if math.isfinite(scores[m.member])]
    if len(paths) < 2 or not members:
        return None
    values = [[member.values.get(path) for member in members] for path in paths]
    metrics = np.asarray([column.scale * scores[member.member] for member in members])
    heights = np.stack([*map(_heights, values), _heights(metrics.tolist())], axis=1)
    chosen = {member.member for member in chosen_members(variant, role)}
    names = [*short_names(paths).values(), f"{split} {column.title}"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = mpl.colormaps["cividis"](0.9 * heights[:, -1])
        kinds = [_kind(member.member in chosen, member.dropped is not None) for member in members]
        for line, colour, kind in zip(heights, colours, kinds, strict=True):
            axes.plot(line, **{"color": colour, "linewidth": 1.1, "alpha": 0.8, **kind})
        for place, entries in enumerate([*values, metrics.tolist()]):
            _write_axis(
                axes, place, entries, heights[:, place], column.digits * (place == len(paths))
            )
        axes.set_xticks(range(len(names)), names)
        axes.set(yticks=(), xlim=(-0.15, len(paths) + 0.45), ylim=(-0.06, 1.06), title=title)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        _add_legend(figure, any(member.dropped for member in members))

    size = (max(4.8, 1.7 * len(names)), 3.5)
    return svg(draw, f"{title}: members of the sweep over {', '.join(paths)}", size)


def _kind(chosen: bool, dropped: bool) -> dict[str, Any]:
    """Return the style of a member's line beyond its colour."""
    if chosen:
        return {"color": _CHOSEN, "linewidth": 2.4, "alpha": 1.0, "zorder": 4}
    return {"color": _DROPPED, "linestyle": "--", "linewidth": 0.9} if dropped else {"zorder": 3}


def _heights(values: Sequence[Any]) -> np.ndarray:
    """Place values on an axis in [0, 1]: positive numbers over two decades or more by their log.

    Values that are not all numbers are placed by the order of their texts.
    """
    numbers = np.asarray([number(value) for value in values])
    if not np.isfinite(numbers).all():
        texts = sorted({str(value) for value in values})
        numbers = np.asarray([float(texts.index(str(value))) for value in values])
    low, high = numbers.min(), numbers.max()
    if low > 0 and high >= 100 * low:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)


def _write_axis(
    axes: Axes, place: int, values: Sequence[Any], heights: np.ndarray, digits: int
) -> None:
    """Draw a vertical axis with labels at its values, or at the ends and the middle of many."""
    axes.axvline(place, 0.05, 0.95, color="#444444", linewidth=0.8, zorder=2)
    by_height = dict(
        sorted(zip(map(float, heights), values, strict=True), key=lambda item: item[0])
    )
    ticks = list(by_height)
    if len(ticks) > _MAX_TICKS:
        middle = min(ticks, key=lambda height: abs(height - 0.5))
        ticks = [ticks[0], middle, ticks[-1]]
    for height in ticks:
        value = by_height[height]
        short = isinstance(value, float) and len(by_height) > _MAX_TICKS
        text = f"{value:.{digits}f}" if digits else f"{value:.3g}" if short else format_value(value)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
        axes.text(place + 0.03, height, text, va="center", size=8.5, zorder=5, bbox=box)


def _add_legend(figure: Figure, any_dropped: bool) -> None:
    handles = [Line2D([], [], color=_CHOSEN, linewidth=2.4)]
    labels = ["chosen"]
    if any_dropped:
        handles.append(Line2D([], [], color=_DROPPED, linewidth=0.9, linestyle="--"))
        labels.append("dropped")
    figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=1.8)
