"""The tables of all swept values, not only of the chosen ones."""

from collections.abc import Sequence

from kdjax.report.metric_format import COLUMNS, Column, column_of, format_mean, format_value
from kdjax.report.results import MemberResult, RunSummary
from kdjax.report.statistics import (
    Mean,
    by_values,
    chosen_members,
    mean_over_seeds,
    member_score,
    roles_of,
    short_names,
    swept_paths,
)
from kdjax.report.table import Table

_NOTE = "Bold: the values that were chosen on the {split} split."
_DROPPED = "To step N: dropped by successive halving, with the scores of that step."


def every_value(report: RunSummary, split: str = "test") -> list[Table]:
    """Tabulate, for each trained role, every combination of swept values, mean ± sd over seeds.

    The first metric is that of the choice, on its split; the others are of `split`. Roles of
    variants that sweep nothing but the seed are left out.
    """
    tables = (_role_table(report, role, split) for role in roles_of(report))
    return [table for table in tables if table.rows]


def _role_table(report: RunSummary, role: str, split: str) -> Table:
    judged, selection = column_of(report.selection.metric), report.selection
    points = [
        (variant, members)
        for variant in report.variants
        if role in variant.roles and variant.roles[role].trains and swept_paths(variant)
        for members in by_values(variant)
    ]
    columns = [
        column
        for column in (*COLUMNS, column_of("agreement"))
        if any(_mean(members, role, column, split).n for _, members in points)
    ]
    paths = short_names(list(dict.fromkeys(p for v, _ in points for p in swept_paths(v))))
    chosen = {
        (variant.name, member.member)
        for variant in report.variants
        if role in variant.chosen
        for member in chosen_members(variant, role)
    }
    rows, bold = [], set()
    for row, (variant, members) in enumerate(points):
        values, first = members[0].values, _mean(members, role, judged, selection.split)
        count, dropped = len(members), members[0].dropped
        rows.append(
            (
                variant.name if dropped is None else f"{variant.name} to step {dropped:,}",
                *(format_value(values.get(path, "-")) for path in paths),
                str(count) if first.n == count else f"{first.n} of {count}",
                format_mean(first, judged),
                *(format_mean(_mean(members, role, c, split), c) for c in columns),
            )
        )
        if any((variant.name, member.member) in chosen for member in members):
            bold |= {(row, column) for column in range(1, len(paths) + 1)}
    titles = (
        f"{s} {c.title}" for s, c in [(selection.split, judged), *((split, c) for c in columns)]
    )
    names = [variant.name for variant, _ in points]
    any_dropped = any(members[0].dropped is not None for _, members in points)
    return Table(
        title=f"{role}: every swept value, mean ± sd over seeds",
        header=("variant", *paths.values(), "seeds", *titles),
        rows=tuple(rows),
        text_columns=1,
        bold=frozenset(bold),
        notes=(_NOTE.format(split=selection.split), *([_DROPPED] if any_dropped else [])),
        rules=frozenset(r for r in range(1, len(names)) if names[r] != names[r - 1]),
    )


def _mean(members: Sequence[MemberResult], role: str, column: Column, split: str) -> Mean:
    """Average a role's metric, or one of two roles, such as the agreement."""
    key = f"{role}/{column.metric}"
    if not any(key in member.results.get(split, {}) for member in members):
        key = column.metric
    return mean_over_seeds(member_score(member, key, split) for member in members)
