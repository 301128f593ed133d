"""One self-contained page for a run or several: no scripts, no links, nothing to fetch."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.errors import UserError
from kdjax.report import bounds_tables, detections, metrics_log, plots, summary_text, tables
from kdjax.report.metric_format import format_value
from kdjax.report.statistics import diverged, load, main_metrics, roles_of, short_names, sweep_grid
from kdjax.report.style import STYLE

__all__ = ["combine", "page", "write"]

Report = Mapping[str, Any]
Metrics = Sequence[Mapping[str, Any]]


def write(workdir: Path | str) -> Path:
    """Write `workdir/report.html` from its report.json and metrics.jsonl.

    Returns:
      The path of the page.

    Raises:
      UserError: report.json is missing or damaged, or the page cannot be written.
    """
    return combine([workdir], Path(workdir) / "report.html")


def combine(workdirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write one page about several workdirs; see `write`."""
    if not workdirs:
        raise UserError("no workdir given: name at least one, `kdjax report runs/*`")
    text = page([(Path(w).resolve().name, _report(Path(w)), _metrics(Path(w))) for w in workdirs])
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    return out


def page(reports: Sequence[tuple[str, Report, Metrics]]) -> str:
    """Return the page for (name, report, lines of metrics.jsonl) of each run."""
    many = len(reports) > 1
    title = f"{len(reports)} runs" if many else str(reports[0][1].get("title") or reports[0][0])
    top = ""
    if many:
        links = "".join(
            f'<a href="#run-{index}">{_text(name)}</a>'
            for index, (name, _, _) in enumerate(reports)
        )
        named = [(name, report) for name, report, _ in reports]
        top = f"<h1>{title}</h1><nav>{links}</nav>{tables.as_html(tables.overview(named))}"
    runs = "".join(
        f'<article id="run-{index}">{_run(name, report, metrics, "h2" if many else "h1")}</article>'
        for index, (name, report, metrics) in enumerate(reports)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{top}{runs}</main></body></html>\n"
    )


def _run(name: str, report: Report, metrics: Metrics, heading: str) -> str:
    title = str(report.get("title") or name)
    parts = [
        f"<header><{heading}>{_text(title)}</{heading}>{_facts(name, report)}</header>",
        _incomplete(report),
        f'<p class="summary">{_text(summary_text.summary(report))}</p>',
        *map(tables.as_html, tables.everything(report)),
        _section("Difference by seed", _differences(report)),
        _section("What was swept", _sweeps(report)),
        _section("Training curves", _curves(report, metrics)),
        _section("Reliability on the test split", _reliability(report)),
        _section("Generalization bounds", _bounds(report)),
        _section("What was detected", detections.as_html(report.get("pictures") or [])),
        _section("Who played", tables.as_html(tables.players(report))),
        _section("Diverged members", _diverged(report)),
        _section("How to get this again", _origin(report)),
    ]
    return "\n".join(part for part in parts if part)


def _facts(name: str, report: Report) -> str:
    data = report.get("data") or {}
    facts = {
        "run": name,
        "data": data.get("name"),
        "classes": data.get("num_classes"),
        "steps": _grouped(report.get("steps")),
        "batch": report.get("batch_size"),
        "device": report.get("device"),
        "seconds": _grouped(report.get("wall_seconds")),
    }
    items = "".join(
        f"<li><span>{key}</span> {_text(value)}</li>"
        for key, value in facts.items()
        if value is not None
    )
    return f'<ul class="facts">{items}</ul>'


def _incomplete(report: Report) -> str:
    if report.get("complete", False):
        return ""
    return (
        '<p class="warning">This run is not complete: the numbers are of an unfinished training.'
        " The same command goes on where it stopped.</p>"
    )


def _differences(report: Report) -> str:
    found = (tables.differences(report, role=role) for role in roles_of(report))
    return "".join(tables.as_html(table) for table in found if table is not None)


def _sweeps(report: Report) -> str:
    """Show a curve for one swept path, heat maps for more, of every role that was trained."""
    selection = report.get("selection") or {}
    metric, split = selection.get("metric", "accuracy"), selection.get("split", "validation")
    figures: list[str | None] = []
    for role in roles_of(report):
        grids = {
            variant["name"]: sweep_grid(report, variant["name"], role, metric, split)
            for variant in report["variants"]
            if (variant["roles"].get(role) or {}).get("trains", role in variant["roles"])
        }
        for path in dict.fromkeys(g.paths[0] for g in grids.values() if len(g.paths) == 1):
            figures.append(plots.sweep_curve(report, role, metric, path, split=split))
        lone = len(report["variants"]) == 1
        for variant, grid in grids.items():
            whose = role if lone else f"{variant}, {role}"
            figures.append(plots.heat_map(grid, f"{whose}: {split} {metric}", metric))
    note = f"Mean ± sd over seeds on the {split} split; the choice was made here."
    return _figures(figures, note)


def _curves(report: Report, metrics: Metrics) -> str:
    figures = []
    for role in roles_of(report):
        for split in ("validation", "test_train"):
            figures.append(
                plots.curves(report, metrics, role, main_metrics(report)[0], split=split)
            )
        figures.append(
            plots.curves(report, metrics, role, "nll")
            or plots.curves(report, metrics, role, "loss")
            or plots.curves(report, metrics, role, "loss", split="train")
        )
    note = "Lines: mean over the seeds of the chosen members; bands: ± one sd."
    return _figures(figures, note)


def _reliability(report: Report) -> str:
    lone = len(report["variants"]) == 1
    figures = {
        role: [
            plots.reliability(
                found["before"],
                found.get("after"),
                role if lone else f"{variant['name']}, {role}",
            )
            for variant in report["variants"]
            if (found := (variant.get("reliability") or {}).get(role))
        ]
        for role in roles_of(report)
    }
    fitted = any(
        "after" in found
        for variant in report["variants"]
        for found in (variant.get("reliability") or {}).values()
    )
    note = (
        "Bins pooled over the chosen members."
        f"{' The temperature was fitted on the validation split.' * fitted}"
        " A gap above a bar is overconfidence. The ECE in a panel is of the pooled bins, so it"
        " may be lower than the mean of the members' own in the table."
    )
    first, *others = figures
    folded = "".join(
        f"<details><summary>{_text(role)}</summary>{_figures(figures[role], '', small=True)}"
        "</details>"
        for role in others
        if figures[role]
    )
    return _figures(figures[first], note, small=True) + folded


def _bounds(report: Report) -> str:
    found = report.get("bounds")
    if not found:
        return ""
    figure = _figures([bounds_tables.bounds_figure(found["networks"])], "")
    command = f'<pre class="scroll">{_text(found.get("command"))}</pre>'
    return tables.as_html(bounds_tables.bounds_table(found["networks"])) + figure + command


def _figures(figures: Sequence[str | None], note: str, *, small: bool = False) -> str:
    cards = "".join(f"<figure>{figure}</figure>" for figure in figures if figure)
    if not cards:
        return ""
    above = f'<p class="note">{_text(note)}</p>' if note else ""
    return f'{above}<div class="figures{" small" if small else ""}">{cards}</div>'


def _diverged(report: Report) -> str:
    lost = diverged(report)
    if not lost:
        return ""
    paths = list(dict.fromkeys(path for _, member in lost for path in member["values"]))
    names = short_names(paths)
    rows = [
        (
            variant,
            str(member["diverged"]),
            str(member.get("member")),
            *(format_value(member["values"].get(path, "-")) for path in paths),
        )
        for variant, member in lost
    ]
    header = ("variant", "what happened", "member", *(names[path] for path in paths))
    table = tables.Table("Members with a non-finite loss", header, tuple(rows), text_columns=2)
    return tables.as_html(table)


def _origin(report: Report) -> str:
    command = report.get("command")
    versions = (report.get("versions") or {}).items()
    listed = ", ".join(f"{key} {value}" for key, value in versions)
    config = json.dumps(report.get("config") or {}, indent=2, default=str, ensure_ascii=False)
    parts = [
        f'<pre class="scroll">{_text(command)}</pre>' if command else "",
        f'<p class="note">{_text(listed)}</p>' if listed else "",
        f"<details><summary>The whole config</summary>"
        f'<pre class="scroll">{_text(config)}</pre></details>',
    ]
    return "".join(parts)


def _section(title: str, body: str) -> str:
    return f"<section><h3>{title}</h3>{body}</section>" if body else ""


def _report(workdir: Path) -> Report:
    """What a run wrote, with the bounds of its networks if they have been taken."""
    return {**load(workdir), "bounds": bounds_tables.read_bounds(workdir)}


def _metrics(workdir: Path) -> Metrics:
    path = workdir / "metrics.jsonl"
    return metrics_log.read(path) if path.exists() else []


def _grouped(value: Any) -> str | None:
    return f"{value:,.0f}" if isinstance(value, int | float) else None


def _text(value: Any) -> str:
    return html.escape(str(value))
