"""One self-contained page for one or several runs, without scripts or external files."""

import json
from collections.abc import Sequence
from typing import Any

from kdjax.report import (
    bounds_tables,
    cost_table,
    detections,
    files,
    metrics_log,
    plots,
    summary_text,
    sweep_table,
    tables,
    text_samples,
)
from kdjax.report.files import Path
from kdjax.report.metric_format import format_value
from kdjax.report.parallel_coordinates import parallel_coordinates
from kdjax.report.records import RunRecord, read_records, with_titles, write_text
from kdjax.report.results import RunSummary
from kdjax.report.statistics import (
    diverged,
    fills_grid,
    main_metrics,
    roles_of,
    short_names,
    sweep_grid,
)
from kdjax.report.style import STYLE
from kdjax.report.table import Table
from kdjax.report.template import render
from kdjax.report.trade_off import trade_off


def write(workdir: Path) -> Path:
    """Write `workdir/report.html`; see `combine`."""
    return combine([workdir], workdir / "report.html")


def combine(workdirs: Sequence[Path], out: Path) -> Path:
    """Write one page for several workdirs, from report.json, metrics.jsonl and bounds.json.

    Raises:
      UserError: report.json is missing or damaged, or the page cannot be written.
    """
    records = [
        record._replace(metrics=_metrics(workdir))
        for workdir, record in zip(workdirs, read_records(workdirs), strict=True)
    ]
    return write_text(out, page(records))


def page(records: Sequence[RunRecord]) -> str:
    """Return the page of one or several runs."""
    records = [with_titles(record) for record in records]
    reports = [(record.name, record.report) for record in records]
    title = f"{len(records)} runs" if len(records) > 1 else _title(records[0])
    return render(
        "page.html.j2",
        title=title,
        style=STYLE,
        overview=tables.overview(reports),
        trade_off=trade_off(reports, "student") if len(reports) > 1 else None,
        runs=[_article(record) for record in records],
    )


def _article(record: RunRecord) -> dict[str, Any]:
    """Return the variables of run.html.j2 for a run."""
    report, bounds = record.report, record.bounds
    trade_offs = (trade_off([(record.name, report)], role) for role in roles_of(report))
    each_difference = (tables.differences(report, role=role) for role in roles_of(report))
    return {
        "name": record.name,
        "title": _title(record),
        "report": report,
        "facts": _facts(record),
        "summary": summary_text.summary(report),
        "tables": tables.everything(report),
        "differences": [table for table in each_difference if table],
        "trade_offs": [figure for figure in trade_offs if figure],
        "sweeps": _sweeps(report),
        "every_value": sweep_table.every_value(report),
        "curves": _curves(record),
        "reliability": _reliability(report),
        "temperature_fitted": any(
            bins.after for variant in report.variants for bins in variant.reliability.values()
        ),
        "bounds": bounds,
        "bounds_table": bounds and bounds_tables.bounds_table(bounds.networks),
        "bounds_figure": bounds and bounds_tables.bounds_figure(bounds.networks),
        "detections": detections.as_html(report.pictures),
        "texts": text_samples.as_html(report.texts),
        "players": tables.players(report),
        "costs": cost_table.costs(report),
        "dropped": tables.dropped(report),
        "diverged": _diverged(report),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "config": json.dumps(report.config, indent=2, default=str, ensure_ascii=False),
    }


def _title(record: RunRecord) -> str:
    return record.report.title or record.name


def _facts(record: RunRecord) -> dict[str, Any]:
    report = record.report
    facts = {
        "run": record.name,
        "data": report.data.name,
        "classes": report.data.num_classes,
        "steps": _grouped(report.steps),
        "batch": report.batch_size,
        "device": report.device,
        "seconds": _grouped(report.wall_seconds),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sweeps(report: RunSummary) -> list[str]:
    """Draw a curve for one swept path, heat maps and lines for more, for every trained role."""
    metric, split = report.selection.metric, report.selection.split
    figures: list[str | None] = []
    for role in roles_of(report):
        trained = [v for v in report.variants if role in v.roles and v.roles[role].trains]
        grids = {
            variant.name: sweep_grid(report, variant, role, metric, split)
            for variant in trained
            if fills_grid(variant)
        }
        for path in dict.fromkeys(g.paths[0] for g in grids.values() if len(g.paths) == 1):
            figures.append(plots.sweep_curve(report, role, metric, path, split=split))
        for name, grid in grids.items():
            title = f"{_network(report, name, role)}: {split} {metric}"
            figures.append(plots.heat_map(grid, title, metric))
        for variant in trained:
            title = f"{_network(report, variant.name, role)}: the members"
            figures.append(parallel_coordinates(variant, role, metric, title, split=split))
    return [figure for figure in figures if figure]


def _curves(record: RunRecord) -> list[str]:
    figures = []
    for role in roles_of(record.report):

        def curve(metric: str, split: str = "validation", role: str = role) -> str | None:
            return plots.curves(record.report, record.metrics, role, metric, split=split)

        main_metric = main_metrics(record.report)[0]
        figures += [curve(main_metric), curve(main_metric, "test_train")]
        figures.append(curve("nll") or curve("loss") or curve("loss", "train"))
    return [figure for figure in figures if figure]


def _reliability(report: RunSummary) -> list[tuple[str, list[str]]]:
    """Draw the reliability diagrams of each role (the student first) and variant."""
    return [
        (
            role,
            [
                plots.reliability(bins.before, bins.after, _network(report, variant.name, role))
                for variant in report.variants
                if (bins := variant.reliability.get(role))
            ],
        )
        for role in roles_of(report)
    ]


def _network(report: RunSummary, variant: str, role: str) -> str:
    """Return a network's name: its role, after its variant if there are several."""
    return role if len(report.variants) == 1 else f"{variant}, {role}"


def _diverged(report: RunSummary) -> list[Table]:
    members = diverged(report)
    if not members:
        return []
    names = short_names(
        list(dict.fromkeys(path for _, member in members for path in member.values))
    )
    rows = [
        (
            variant,
            str(member.diverged),
            str(member.member),
            *(format_value(member.values.get(path, "-")) for path in names),
        )
        for variant, member in members
    ]
    header = ("variant", "reason", "member", *names.values())
    return [Table("Members with a non-finite loss", header, tuple(rows), text_columns=2)]


def _metrics(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    return metrics_log.read(path) if files.exists(path) else []


def _grouped(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"
