"""The table of test metrics under corruptions of the images."""

from kdjax.report.metric_format import column_of, format_mean
from kdjax.report.results import RunSummary, VariantResult
from kdjax.report.statistics import (
    CORRUPTED,
    chosen_members,
    corrupted_splits,
    mean_over_seeds,
    member_score,
    roles_of,
)
from kdjax.report.table import Table

_METRICS = ("accuracy", "ece", "nll", "ece_calibrated")


def robustness(report: RunSummary) -> Table | None:
    """Tabulate clean metrics beside their means over all corruptions and accuracy by kind.

    Each cell is mean ± sd over seeds of a member's mean over kinds and levels. None without
    corrupted splits.
    """
    splits = corrupted_splits(report)
    if not splits:
        return None
    kinds: dict[str, list[str]] = {}
    for split in splits:
        kinds.setdefault(split.removeprefix(CORRUPTED).rsplit("_", 1)[0], []).append(split)
    columns = [
        *(
            (metric, where, name)
            for metric in _METRICS
            for where, name in ((["test"], "clean"), (list(splits), "corrupted"))
        ),
        *(("accuracy", where, kind) for kind, where in kinds.items()),
    ]
    rows = [
        (variant.name, role, *(_cell(variant, role, metric, where) for metric, where, _ in columns))
        for role in roles_of(report)
        for variant in report.variants
        if role in variant.chosen
    ]
    names = [row[1] for row in rows]
    return Table(
        title="test images under corruptions, mean ± sd over seeds",
        header=("variant", "role", *(f"{column_of(m).title}, {name}" for m, _, name in columns)),
        rows=tuple(rows),
        text_columns=2,
        notes=(
            "Corrupted: the mean over kinds and three levels each. T is fitted on clean images.",
        ),
        rules=frozenset(r for r in range(1, len(names)) if names[r] != names[r - 1]),
    )


def _cell(variant: VariantResult, role: str, metric: str, splits: list[str]) -> str:
    means = [
        sum(member_score(member, f"{role}/{metric}", split) for split in splits) / len(splits)
        for member in chosen_members(variant, role)
    ]
    return format_mean(mean_over_seeds(means), column_of(metric))
