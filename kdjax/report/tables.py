"""The tables of a report: results, paired differences, players, and several runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kdjax.report.metric_format import COLUMNS, Column, column_of, format_mean, format_value
from kdjax.report.records import RunRecord, with_titles
from kdjax.report.results import MemberResult, RunSummary, VariantResult
from kdjax.report.robustness_table import robustness
from kdjax.report.statistics import (
    MOST_SWEPT,
    Mean,
    baseline_of,
    chosen_members,
    count_seeds,
    diverged,
    extra_splits,
    main_metrics,
    mean_over_seeds,
    member_score,
    number,
    paired,
    roles_of,
    short_names,
    summarise,
)
from kdjax.report.table import BOLD_NOTE, Table, show, show_line
from kdjax.report.text_samples import as_lines

CHOSEN = "chosen values"  # the column of a report with many swept paths


def results(report: RunSummary, split: str = "test") -> Table:
    """Tabulate, for each role and variant, the mean ± sd over the seeds of the chosen members.

    Frozen networks of equal scores share a row. The best mean of each role is bold. Notes list
    diverged members.
    """
    selection = report.selection
    selected = column_of(selection.metric, sign=-1 if selection.lower_is_better else 1)
    candidates = COLUMNS if selected in COLUMNS else (selected, *COLUMNS)
    pairs = _rows(report, candidates, split)
    means = {
        (row, column): summarise(variant, role, column.metric, split)
        for row, (role, variant) in enumerate(pairs)
        for column in candidates
    }
    columns = [c for c in candidates if any(means[row, c].n for row in range(len(pairs)))]
    swept, choices = _chosen_values(report, pairs)
    titles = [column.title for column in columns]
    # the first metric is next to the name, so narrow windows show it; a wide column is the last
    before, behind = (slice(0), slice(None)) if swept == [CHOSEN] else (slice(None), slice(0))
    header = ("variant", "role", *titles[:1], *swept[before], "seeds", *titles[1:], *swept[behind])
    rows = [
        (
            variant.name,
            role if variant.roles[role].trains else f"{role} (frozen)",
            *(format_mean(means[row, column], column) for column in columns[:1]),
            *choices[row][before],
            _seeds(variant, role, [means[row, column].n for column in columns]),
            *(format_mean(means[row, column], column) for column in columns[1:]),
            *choices[row][behind],
        )
        for row, (role, variant) in enumerate(pairs)
    ]
    places = [2, *(header.index("seeds") + place for place in range(1, len(columns)))]
    groups = frozenset(r for r in range(1, len(pairs)) if pairs[r][0] != pairs[r - 1][0])
    bold = _best(means, dict(zip(columns, places, strict=False)), [role for role, _ in pairs])
    return Table(
        title=f"{split}, mean ± sd over seeds",
        header=header,
        rows=tuple(rows),
        text_columns=2,
        bold=bold,
        notes=(
            *((BOLD_NOTE,) if bold else ()),
            *_divergence_notes(report),
            *_breakdown_notes(pairs, columns, split),
        ),
        rules=groups if len(report.variants) > 1 else frozenset(),
    )


def everything(report: RunSummary) -> list[Table]:
    """Tabulate the results of each test split; later tables do not repeat the first's notes."""
    first, *others = (results(report, split) for split in ("test", *extra_splits(report)))
    new_notes = [tuple(n for n in table.notes if n not in first.notes) for table in others]
    return [first, *(t._replace(notes=n) for t, n in zip(others, new_notes, strict=True))]


def show_tables(report: RunSummary) -> None:
    """Print all tables of a run in the terminal."""
    report = with_titles(RunRecord("", report)).report
    tables = [*everything(report), differences(report), robustness(report)]
    for table in tables:
        if table is not None:
            show(table)
    for line in as_lines(report.texts):
        show_line(line)


def differences(report: RunSummary, role: str = "student", split: str = "test") -> Table | None:
    """Tabulate each variant's difference to the baseline, paired by seed.

    Returns:
      A table, or None where there is no second variant with that role.
    """
    baseline = baseline_of(report, role)
    variants = [v for v in report.variants if role in v.roles and v is not baseline]
    columns = [column_of(metric) for metric in main_metrics(report)]
    rows = []
    for variant in variants:
        pairs = [paired(variant, baseline, role, c.metric, split) for c in columns]
        if pairs[0].size:
            signs = [int(np.sum(np.sign(pairs[0]) == sign)) for sign in (1, 0, -1)]
            cells = (_signed(values, column) for values, column in zip(pairs, columns, strict=True))
            first, *rest = cells
            counts = "/".join(map(str, signs))
            rows.append((variant.name, first, counts, str(pairs[0].size), *rest))
    if not rows:
        return None
    first, *rest = (c.title for c in columns)
    return Table(
        title=f"{role}, difference to {baseline.name}, paired by seed ({split})",
        header=("variant", first, "higher/equal/lower", "pairs", *rest),
        rows=tuple(rows),
        text_columns=1,
        notes=(
            "Each cell: mean ± sd of (variant - baseline) over the seeds that both have;"
            " % columns are in points. Higher/equal/lower: counts of seeds, by the first column.",
        ),
    )


def players(report: RunSummary) -> Table:
    """Tabulate each player: model, loss, origin of the weights, parameters."""
    rows = [
        (
            variant.name,
            role,
            player.model,
            "trained" if player.trains else "frozen",
            player.loss or "-",
            player.source or "-",
            f"{player.parameters:,}" if player.parameters else "-",
        )
        for variant in report.variants
        for role, player in variant.roles.items()
    ]
    header = ("variant", "role", "model", "training", "minimises", "weights from", "parameters")
    return Table("networks and losses", header, tuple(rows), text_columns=6)


def dropped(report: RunSummary) -> Table | None:
    """Tabulate the members that successive halving dropped, the last ones first; None if none."""
    members = [(v, m) for v in report.variants for m in v.members if m.dropped is not None]
    if not members:
        return None
    members.sort(key=lambda item: -(item[1].dropped or 0))
    split, column = report.selection.split, column_of(report.selection.metric)
    paths = short_names(list(dict.fromkeys(path for _, m in members for path in m.values)))
    learning = {role for v, _ in members for role, player in v.roles.items() if player.trains}
    roles = [role for role in roles_of(report) if role in learning]

    def score(member: MemberResult, role: str) -> str:
        value = member_score(member, f"{role}/{column.metric}", split)
        return format_mean(mean_over_seeds([value]), column)

    rows = [
        (
            variant.name,
            str(member.member),
            f"{member.dropped:,}",
            *(format_value(member.values.get(path, "-")) for path in paths),
            *(score(member, role) for role in roles),
        )
        for variant, member in members
    ]
    titles = [f"{role} {column.title}" for role in roles]
    header = ("variant", "member", "after step", *paths.values(), *titles)
    notes = (f"Metrics are those of the {split} split after that step.",)
    return Table("Dropped members", header, tuple(rows), text_columns=1, notes=notes)


def overview(reports: Sequence[tuple[str, RunSummary]], split: str = "test") -> Table:
    """Tabulate the student (or the first role) of every variant of several runs."""
    columns = [column_of(metric) for metric in ("accuracy", "ece", "nll", "brier")]
    rows = []
    for run, report in reports:
        role = roles_of(report)[0]
        for variant in report.variants:
            means = [summarise(variant, role, column.metric, split) for column in columns]
            counted = _seeds(variant, role, [mean.n for mean in means])
            cells = (format_mean(m, column) for m, column in zip(means, columns, strict=True))
            rows.append((run, report.data.name or "-", variant.name, role, counted, *cells))
    header = ("run", "data", "variant", "role", "seeds", *(column.title for column in columns))
    return Table(f"{split}, mean ± sd over seeds", header, tuple(rows), text_columns=4)


def _rows(
    report: RunSummary, columns: Sequence[Column], split: str
) -> list[tuple[str, VariantResult]]:
    """Return role and variant of each row; equal frozen networks have one, which counts them."""
    equal: dict[tuple[str, str], list[VariantResult]] = {}
    for role in roles_of(report):
        for variant in report.variants:
            if role not in variant.roles:
                continue
            content = variant.name
            if not variant.roles[role].trains:
                means = [(summarise(variant, role, c.metric, split), c) for c in columns]
                content = repr([format_mean(mean, column) for mean, column in means])
            equal.setdefault((role, content), []).append(variant)
    return [
        (role, replace(first, name=f"{first.name} and {len(others)} more") if others else first)
        for (role, _), (first, *others) in equal.items()
    ]


def _chosen_values(
    report: RunSummary, pairs: Sequence[tuple[str, VariantResult]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the titles and the cells of the chosen values: a column a path, or one for many."""
    names = short_names(report.selection.over)
    rows = [[_choice(variant, role, path) for path in names] for role, variant in pairs]
    if len(names) <= MOST_SWEPT:
        return list(names.values()), rows
    named = [zip(names.values(), row, strict=True) for row in rows]
    texts = [", ".join(f"{name} {cell}" for name, cell in row if cell != "-") for row in named]
    return [CHOSEN], [[text or "-"] for text in texts]


def _choice(variant: VariantResult, role: str, path: str) -> str:
    if role not in variant.chosen or not variant.roles[role].trains:
        return "-"
    return format_value(variant.chosen[role].values.get(path, "-"))


def _seeds(variant: VariantResult, role: str, counts: Sequence[int]) -> str:
    """Count the seeds: "4 of 5" if one has no finite value."""
    total, finite = count_seeds(variant, role), max(counts, default=0)
    return str(total) if finite == total else f"{finite} of {total}"


def _best(
    means: Mapping[tuple[int, Column], Mean], places: Mapping[Column, int], roles: Sequence[str]
) -> frozenset[tuple[int, int]]:
    """Return the cells with the best mean of their role; a role with one row has none."""
    best = set()
    for role in set(roles):
        rows = [row for row, other in enumerate(roles) if other == role]
        for column, place in places.items():
            scores = {r: column.sign * means[r, column].mean for r in rows if means[r, column].n}
            if column.sign and len(rows) > 1 and scores:
                top = max(scores.values())
                best |= {(r, place) for r, score in scores.items() if score == top}
    return frozenset(best)


def _signed(values: np.ndarray, column: Column) -> str:
    text = format_mean(mean_over_seeds(values), column)
    return text if text.startswith("-") else f"+{text}"


def _divergence_notes(report: RunSummary) -> list[str]:
    by_variant: dict[str, list[MemberResult]] = {}
    for name, member in diverged(report):
        by_variant.setdefault(name, []).append(member)
    return [
        f"{name}: {len(members)} diverged, first member {members[0].member}"
        f" ({', '.join(f'{p} {format_value(v)}' for p, v in members[0].values.items())}):"
        f" {members[0].diverged}"
        for name, members in by_variant.items()
    ]


def _breakdown_notes(
    pairs: Sequence[tuple[str, VariantResult]], columns: Sequence[Column], split: str
) -> list[str]:
    """Note the variants with seeds whose accuracy is below half of the best seed's."""
    notes = []
    for role, variant in pairs if any(c.metric == "accuracy" for c in columns) else ():
        members = chosen_members(variant, role)
        scores = [number(m.results.get(split, {}).get(f"{role}/accuracy")) for m in members]
        top = max((score for score in scores if math.isfinite(score)), default=math.nan)
        low = sum(score < top / 2 for score in scores)
        if low:
            notes.append(
                f"{variant.name} {role}: {low} of {len(scores)} seeds broke down (accuracy below"
                " half of the best seed's)."
            )
    return notes
