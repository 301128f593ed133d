"""The tables of a report: results, paired differences, players, several runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.report.metric_format import COLUMNS, Column, column_of, format_mean, format_value
from kdjax.report.statistics import (
    Grid,
    Mean,
    baseline_of,
    chosen_members,
    diverged,
    extra_splits,
    main_metrics,
    mean_over_seeds,
    paired,
    roles_of,
    short_names,
    summarise,
    sweep_grid,
)
from kdjax.report.table import Table, as_html, as_markdown, show

__all__ = [
    "Grid",
    "Mean",
    "Table",
    "as_html",
    "as_markdown",
    "differences",
    "everything",
    "overview",
    "players",
    "results",
    "show",
    "sweep_grid",
]

Report = Mapping[str, Any]


def results(report: Report, split: str = "test") -> Table:
    """Tabulate, for each role and variant, the mean ± sd over the seeds of the chosen members.

    The best mean of a column is bold among the variants of a role, whatever its distance to the
    next. Diverged members are named in a note.
    """
    picked = (report.get("selection") or {}).get("metric")
    extra = () if picked in (None, *(c.metric for c in COLUMNS)) else (column_of(str(picked)),)
    shown = [
        (role, variant)
        for role in roles_of(report)
        for variant in report["variants"]
        if role in variant["roles"]
    ]
    means = {
        (row, column): summarise(variant, role, column.metric, split)
        for row, (role, variant) in enumerate(shown)
        for column in (*extra, *COLUMNS)
    }
    columns = [c for c in (*extra, *COLUMNS) if any(means[r, c].n for r in range(len(shown)))]
    swept = _chosen_names(report)
    rows = [
        (
            variant["name"],
            role if variant["roles"][role].get("trains", True) else f"{role} (frozen)",
            *(_choice(variant, role, path) for path in swept),
            _seeds(variant, role, [means[row, column].n for column in columns]),
            *(format_mean(means[row, column], column) for column in columns),
        )
        for row, (role, variant) in enumerate(shown)
    ]
    header = ("variant", "role", *swept.values(), "seeds")
    groups = frozenset(r for r in range(1, len(shown)) if shown[r][0] != shown[r - 1][0])
    bold = _best(means, columns, [role for role, _ in shown], len(header))
    spread = ("Bold: the best mean of a role, whatever its distance to the next; not for ECE.",)
    return Table(
        title=f"{split}, mean ± sd over seeds",
        header=(*header, *(column.title for column in columns)),
        rows=tuple(rows),
        text_columns=2,
        bold=bold,
        notes=(*(spread if bold else ()), *_divergence_notes(report)),
        rules=groups if len(report["variants"]) > 1 else frozenset(),
    )


def everything(report: Report) -> list[Table]:
    """Tabulate the results of the test split, then of each further one, a table each.

    Choices are those of the first table; so are the notes of diverged members, said once.
    """
    first, *rest = (results(report, split) for split in ("test", *extra_splits(report)))
    said = set(first.notes)
    return [first, *(t._replace(notes=tuple(n for n in t.notes if n not in said)) for t in rest)]


def differences(
    report: Report, baseline: str | None = None, role: str = "student", split: str = "test"
) -> Table | None:
    """Tabulate each variant's difference to a baseline, paired by seed.

    Returns:
      A table, or None where there is no second variant with that role.
    """
    baseline = baseline_of(report) if baseline is None else baseline
    names = [v["name"] for v in report["variants"] if role in v["roles"] and v["name"] != baseline]
    columns = [column_of(metric) for metric in main_metrics(report)]
    rows = []
    for name in names:
        pairs = [paired(report, name, baseline, role, c.metric, split) for c in columns]
        if pairs[0].size:
            signs = [int(np.sum(np.sign(pairs[0]) == sign)) for sign in (1, 0, -1)]
            cells = (_signed(values, column) for values, column in zip(pairs, columns, strict=True))
            rows.append((name, str(pairs[0].size), "/".join(map(str, signs)), *cells))
    if not rows:
        return None
    return Table(
        title=f"{role}, difference to {baseline}, paired by seed ({split})",
        header=("variant", "pairs", "higher/equal/lower", *(c.title for c in columns)),
        rows=tuple(rows),
        text_columns=1,
        notes=(
            "Each cell: mean ± sd of (variant - baseline) over the seeds that both have;"
            " % columns are in points. Higher/equal/lower counts the seeds by the first.",
        ),
    )


def players(report: Report) -> Table:
    """Tabulate who played: model, parameters, and whether it was trained or where it is from."""
    rows = [
        (
            variant["name"],
            role,
            str(player.get("model", "-")),
            "trained" if player.get("trains", True) else "frozen",
            str(player.get("source") or "-"),
            f"{int(player['parameters']):,}" if player.get("parameters") else "-",
        )
        for variant in report["variants"]
        for role, player in variant["roles"].items()
    ]
    header = ("variant", "role", "model", "", "weights from", "parameters")
    return Table("Players", header, tuple(rows), text_columns=5)


def overview(reports: Sequence[tuple[str, Report]], split: str = "test") -> Table:
    """Tabulate the first role (the student, if there is one) of every variant of several runs."""
    columns = [column_of(metric) for metric in ("accuracy", "ece", "nll", "brier")]
    rows = []
    for run, report in reports:
        role, data = roles_of(report)[0], (report.get("data") or {}).get("name", "-")
        for variant in report["variants"]:
            means = [summarise(variant, role, column.metric, split) for column in columns]
            counted = _seeds(variant, role, [mean.n for mean in means])
            cells = (format_mean(m, column) for m, column in zip(means, columns, strict=True))
            rows.append((run, str(data), variant["name"], role, counted, *cells))
    header = ("run", "data", "variant", "role", "seeds", *(column.title for column in columns))
    return Table(f"{split}, mean ± sd over seeds", header, tuple(rows), text_columns=4)


def _chosen_names(report: Report) -> dict[str, str]:
    """Map the swept paths (the seed apart) to short names: the columns of the choice."""
    return short_names(list((report.get("selection") or {}).get("over") or []))


def _choice(variant: Mapping[str, Any], role: str, path: str) -> str:
    values = ((variant.get("chosen") or {}).get(role) or {}).get("values") or {}
    return format_value(values.get(path, "-"))


def _seeds(variant: Mapping[str, Any], role: str, counts: Sequence[int]) -> str:
    """Count the seeds, "4 of 5" where some of them have no finite value."""
    total, finite = len(chosen_members(variant, role)), max(counts, default=0)
    return str(total) if finite == total else f"{finite} of {total}"


def _best(
    means: Mapping[tuple[int, Column], Mean],
    columns: Sequence[Column],
    roles: Sequence[str],
    first: int,
) -> frozenset[tuple[int, int]]:
    """Find the cells with the best mean of their role; a lone row is nobody's best."""
    best = set()
    for role in set(roles):
        rows = [row for row, other in enumerate(roles) if other == role]
        for index, column in enumerate(columns):
            scores = {r: column.sign * means[r, column].mean for r in rows if means[r, column].n}
            if column.sign and len(rows) > 1 and scores:
                top = max(scores.values())
                best |= {(r, first + index) for r, score in scores.items() if score == top}
    return frozenset(best)


def _signed(values: np.ndarray, column: Column) -> str:
    text = format_mean(mean_over_seeds(values), column)
    return text if text.startswith("-") else f"+{text}"


def _divergence_notes(report: Report) -> list[str]:
    lost: dict[str, list[Mapping[str, Any]]] = {}
    for name, member in diverged(report):
        lost.setdefault(name, []).append(member)
    return [
        f"{name}: {len(members)} diverged, the first being member {members[0].get('member')}"
        f" ({', '.join(f'{p} {format_value(v)}' for p, v in members[0]['values'].items())}):"
        f" {members[0]['diverged']}"
        for name, members in lost.items()
    ]
