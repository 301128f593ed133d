"""The figures of a report, each a self-contained SVG string."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from kdjax.report.figure_style import legend, plain_label, styles, svg
from kdjax.report.metric_format import column_of, format_value
from kdjax.report.results import ReliabilityBins, RunSummary
from kdjax.report.statistics import (
    Grid,
    chosen_members,
    mean_over_seeds,
    number,
    short_names,
    sweep_grid,
    swept_paths,
    variant_names,
)

_MAX_POINTS = 200  # of a curve; more points than pixels only increase the file


def curves(
    report: RunSummary,
    metrics: Sequence[Mapping[str, Any]],
    role: str,
    metric: str,
    *,
    split: str = "validation",
) -> str | None:
    """Draw `<role>/<metric>` against the step: a line and an sd band over seeds, by variant.

    Args:
      report: the report of the run.
      metrics: the lines of its metrics.jsonl; only members chosen for `role` are drawn.
      role: the role to draw.
      metric: its metric.
      split: the split on which it was measured.

    Returns:
      An SVG, or None if no line has a finite value.
    """
    variants = variant_names(report)
    chosen = {
        (variant.name, member.member)
        for variant in report.variants
        for member in chosen_members(variant, role)
    }
    points: dict[str, dict[int, list[float]]] = {}
    for line in metrics:
        value = number(line.get(f"{role}/{metric}"))
        name = line.get("variant", variants[0])
        is_chosen = (name, line.get("member", 0)) in chosen
        if is_chosen and line["split"] == split and math.isfinite(value):
            points.setdefault(name, {}).setdefault(line["step"], []).append(value)
    if not points:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, style in styles(variants).items():
            if name in points:
                _line_with_band(axes, points[name], style, column_of(metric).scale)
        axes.set_xlabel("step")
        _metric_axis(axes, metric, [list(by_step.values()) for by_step in points.values()])
        axes.set_title(f"{role}: {split} {column_of(metric).title}")
        legend(figure, variants, points)

    return svg(draw, f"{split} {metric} of {role} against step")


def sweep_curve(
    report: RunSummary, role: str, metric: str, path: str, *, split: str = "validation"
) -> str | None:
    """Draw `<role>/<metric>` against one swept value, by variant; rings mark the chosen value.

    Returns:
      An SVG, or None if no variant swept only `path`, or no value is finite.
    """
    variants = variant_names(report)
    grids = {
        variant.name: sweep_grid(report, variant, role, metric, split)
        for variant in report.variants
        if role in variant.roles and swept_paths(variant) == [path]
    }
    grids = {name: grid for name, grid in grids.items() if grid.seeds.any()}
    if not grids:
        return None
    column = column_of(metric)
    values = sorted({value for grid in grids.values() for value in grid.axes[0]}, key=number)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (name, style) in enumerate(styles(variants).items()):
            if name in grids:
                # Shift the error bars so that they do not overlap.
                offset = (index - (len(variants) - 1) / 2) * 0.06
                _points_with_bars(axes, grids[name], values, offset, style, column.scale)
        places = range(0, len(values), math.ceil(len(values) / 8))  # more labels would overlap
        axes.set_xticks(places, [format_value(values[place]) for place in places])
        axes.set_xlabel(short_names([path])[path])
        axes.set_ylabel(column.title)
        axes.set_title(f"{role}: {split} {column.title}, rings: chosen")
        legend(figure, variants, grids)

    return svg(draw, f"{split} {metric} of {role} against {path}")


def heat_map(grid: Grid, title: str, metric: str) -> str | None:
    """Draw the means of a sweep over two or more paths, with the numbers in the cells.

    With more than two paths, it shows the first two, and the others at their chosen (or first)
    value.

    Returns:
      An SVG, or None for fewer than two paths, or if no value is finite.
    """
    if len(grid.paths) < 2 or not grid.seeds.any():
        return None
    rest = grid.chosen[2:] if grid.chosen else (0,) * (len(grid.paths) - 2)
    column, names = column_of(metric), short_names(grid.paths)
    mean, sd = (column.scale * part[(..., *rest)] for part in (grid.mean, grid.sd))
    held = "".join(
        f", {names[path]} {format_value(axis[index])}"
        for path, axis, index in zip(grid.paths[2:], grid.axes[2:], rest, strict=True)
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        mesh = axes.pcolormesh(mean, cmap="cividis", edgecolors="white", linewidth=1.5)
        for (row, place), value in np.ndenumerate(mean):
            _write_cell(axes, mesh, (row, place), value, float(sd[row, place]), column.digits)
        if grid.chosen:
            corner = (grid.chosen[1] + 0.02, grid.chosen[0] + 0.02)
            axes.add_patch(Rectangle(corner, 0.96, 0.96, fill=False, edgecolor="#D55E00", lw=2.5))
        for axis, path, values in zip(
            (axes.yaxis, axes.xaxis), grid.paths[:2], grid.axes[:2], strict=True
        ):
            axis.set_ticks(
                [index + 0.5 for index in range(len(values))], [format_value(v) for v in values]
            )
            axis.set_label_text(names[path])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"{title}{held}")

    size = (max(3.0, 1.0 + 0.95 * mean.shape[1]), max(2.2, 1.0 + 0.5 * mean.shape[0]))
    return svg(draw, f"{title}: {metric} over {' and '.join(grid.paths[:2])}", size)


def reliability(before: ReliabilityBins, after: ReliabilityBins | None, title: str) -> str:
    """Draw accuracy against confidence by bin, before and after a fitted temperature."""
    panels = [("", before)]
    if after is not None:
        panels = [("before, ", before), ("at the fitted T, ", after)]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(
            2, len(panels), height_ratios=(3, 1), sharex=True, sharey="row", squeeze=False
        )
        for index, (name, bins) in enumerate(panels):
            _reliability_panel(grid[0, index], grid[1, index], bins, name)
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("examples, %")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        columns = len(labels) if after else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.2)
        figure.suptitle(title, fontsize=11)

    return svg(draw, f"Reliability diagram: {title}", (4.8, 3.9) if after else (3.0, 3.9))


def _reliability_panel(top: Axes, bottom: Axes, bins: ReliabilityBins, name: str) -> None:
    count, accuracy, confidence = (
        np.asarray(values, dtype=np.float64)
        for values in (bins.count, bins.accuracy, bins.confidence)
    )
    edges = np.linspace(0.0, 1.0, count.size + 1)
    width, total, filled = 1.0 / count.size, max(float(count.sum()), 1.0), count > 0
    middle = (edges[:-1] + edges[1:])[filled] / 2
    accuracy, confidence = accuracy[filled], confidence[filled]
    top.bar(middle, accuracy, width * 0.94, color="#0072B2", label="accuracy")
    # The gaps extend from accuracy to mean confidence.
    gap = confidence - accuracy
    for label, height, color in (
        ("overconfidence", np.maximum(gap, 0), "#E69F00"),
        ("underconfidence", np.minimum(gap, 0), "#56B4E9"),
    ):
        top.bar(middle, height, width * 0.94, bottom=accuracy, color=color, label=label)
    top.plot([0, 1], [0, 1], color="#666666", linewidth=1.0, linestyle="--")
    error = float(np.sum(count[filled] * np.abs(accuracy - confidence)) / total)
    top.set_title(f"{name}ECE {100 * error:.2f} %", fontsize=10)
    top.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
    bottom.bar(middle, 100 * count[filled] / total, width * 0.94, color="#666666")
    bottom.set_xlabel("confidence")


def _line_with_band(
    axes: Axes, by_step: Mapping[int, Sequence[float]], style: Mapping[str, Any], scale: float
) -> None:
    steps = sorted(by_step)
    stride = max(1, math.ceil(len(steps) / _MAX_POINTS))
    steps = sorted({*steps[::stride], steps[-1]})
    means = [mean_over_seeds(by_step[step]) for step in steps]
    middle = scale * np.asarray([value.mean for value in means])
    spread = scale * np.nan_to_num(np.asarray([value.sd for value in means]))
    line = {k: v for k, v in style.items() if k != "marker" or len(steps) == 1}
    axes.plot(steps, middle, linewidth=1.6, **line)
    if spread.any():
        low, high = middle - spread, middle + spread
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.13, linewidth=0)


def _points_with_bars(
    axes: Axes,
    grid: Grid,
    values: Sequence[Any],
    offset: float,
    style: Mapping[str, Any],
    scale: float,
) -> None:
    places = np.asarray([values.index(value) for value in grid.axes[0]]) + offset
    bars = scale * np.nan_to_num(grid.sd)
    axes.errorbar(
        places, scale * grid.mean, yerr=bars, linewidth=1.4, elinewidth=0.9, markersize=4, **style
    )
    if grid.chosen:
        at = grid.chosen[0]
        axes.plot(
            places[at], scale * grid.mean[at], marker="o", markersize=10, markerfacecolor="none",
            markeredgecolor=style["color"], markeredgewidth=1.6,
        )  # fmt: skip


def _write_cell(
    axes: Axes, mesh: Any, cell: tuple[int, int], value: float, sd: float, digits: int
) -> None:
    if not math.isfinite(value):
        axes.text(cell[1] + 0.5, cell[0] + 0.5, "no value", ha="center", va="center", size=8)
        return
    dark = mesh.norm(value) < 0.55
    text = f"{value:.{digits}f}" + ("" if math.isnan(sd) else f"\n±{sd:.{digits}f}")
    colour = "white" if dark else "black"
    axes.text(cell[1] + 0.5, cell[0] + 0.5, text, ha="center", va="center", size=8.5, color=colour)


def _metric_axis(axes: Axes, metric: str, seeds: Sequence[Sequence[Sequence[float]]]) -> None:
    """Scale the y axis so that the ends of the curves fill most of its height."""
    column = column_of(metric)
    axes.set_ylabel(column.title)
    means = np.concatenate([[np.mean(v) for v in steps] for steps in seeds]) * column.scale
    if metric == "accuracy" and means.size > 10:
        low, high = float(np.quantile(means, 0.1)), float(means.max())
        axes.set_ylim(low - 0.1 * (high - low) - 0.1, high + 0.1 * (high - low) + 0.1)
    elif (column.sign <= 0 or metric == "loss") and 0 < means.min() < means.max() / 8:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        ticks = [m * 10.0**e for e in range(-6, 6) for m in (1, 2, 5)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain_label))
