"""The figure of accuracy against calibration error, a point a variant."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kdjax.report.figure_style import plain_label, styles, svg
from kdjax.report.metric_format import column_of
from kdjax.report.results import RunSummary
from kdjax.report.statistics import Mean, main_metrics, summarise

_SIZE = (7.2, 4.8)
_FONT = 8.0  # points, of the labels
_ROOM = (0.62 * _FONT, 1.1 * _FONT)  # width of a letter and height of a label, in points


class Point(NamedTuple):
    """A variant and the two metrics of one of its roles, in the units of the axes."""

    name: str
    x: Mean
    y: Mean


def trade_off(reports: Sequence[tuple[str, RunSummary]], role: str) -> str | None:
    """Draw the accuracy of `role` against its calibration error on the test split.

    Args:
      reports: runs of one task, each with its name.
      role: the role to draw, in all variants that train it.

    Returns:
      An SVG with a point a variant and bars of ± one sd over seeds, or None for fewer than three
      points or if the runs have different data or metrics.
    """
    metrics = {tuple(main_metrics(report)) for _, report in reports}
    data = {(report.data.name, report.data.num_classes) for _, report in reports}
    if len(metrics) > 1 or len(data) > 1:
        return None
    first, *others = metrics.pop()
    x = column_of(first)
    y = column_of(next(metric for metric in others if metric.endswith("ece")))
    points = points_of(reports, role, x.metric, y.metric)
    if len(points) < 3:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xlabel=x.title, ylabel=y.title)
        axes.set_title(f"{role}, test: mean ± sd over seeds")
        point_styles = list(styles(str(index) for index in range(len(points))).values())
        for point, style in zip(points, point_styles, strict=True):
            axes.errorbar(
                point.x.mean, point.y.mean, xerr=_bar(point.x), yerr=_bar(point.y),
                color=style["color"], marker=style["marker"], markersize=5, elinewidth=0.8,
            )  # fmt: skip
        means = [point.y.mean for point in points]
        if 0 < min(means) < max(means) / 8:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(plain_label))
            axes.yaxis.set_minor_formatter(NullFormatter())
        _write_names(figure, axes, points, [style["color"] for style in point_styles])

    return svg(draw, f"{x.title} against {y.title} of {role}", _SIZE)


def points_of(reports: Sequence[tuple[str, RunSummary]], role: str, x: str, y: str) -> list[Point]:
    """Return the finite points; names that several runs have are preceded by the run's name."""
    networks = [
        (run, variant)
        for run, report in reports
        for variant in report.variants
        if role in variant.roles and variant.roles[role].trains
    ]
    count = Counter(variant.name for _, variant in networks)
    points = []
    for run, variant in networks:
        name = variant.name if count[variant.name] == 1 else f"{run}: {variant.name}"
        scores = []
        for metric in (x, y):
            scale, score = column_of(metric).scale, summarise(variant, role, metric)
            scores.append(Mean(scale * score.mean, scale * score.sd, score.n))
        if all(math.isfinite(score.mean) for score in scores):
            points.append(Point(name, *scores))
    return points


def _bar(score: Mean) -> float | None:
    return None if math.isnan(score.sd) else score.sd


def _write_names(
    figure: Figure, axes: Axes, points: Sequence[Point], colours: Sequence[str]
) -> None:
    """Write each name near its point, where it covers as little as possible."""
    figure.draw_without_rendering()  # fixes the layout, so that places are known
    figure.set_layout_engine("none")
    centres = axes.transData.transform([(point.x.mean, point.y.mean) for point in points])
    centres *= 72 / figure.dpi
    right = axes.bbox.x1 * 72 / figure.dpi
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in centres]
    for point, colour, (x, y) in zip(points, colours, centres, strict=True):
        width = _ROOM[0] * len(point.name)
        boxes = [
            (left, y + dy, left + width, y + dy + _ROOM[1])
            for dy in (3, -12, 12, -21, 21, -30, 30, -39)
            for left in (x + 4, x - 4 - width)
            if left > 0 and left + width < right
        ] or [(0.0, y + 3, width, y + 3 + _ROOM[1])]
        box = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(box)
        far = abs(box[1] - y) > 2 * _FONT
        axes.annotate(
            point.name, (point.x.mean, point.y.mean), (box[0] - x, box[1] - y),
            textcoords="offset points", fontsize=_FONT, color=colour,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#888888"} if far else None,
        )  # fmt: skip


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the common area of two boxes (left, bottom, right, top)."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))
