"""Statistics of a finished run: means over seeds, grids of a sweep, paired differences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.report.results import MemberResult, RunSummary, VariantResult

MOST_SWEPT = 4  # paths with a column each, and names in the summary
SEED = "seed"  # the swept path that results are averaged over; never chosen
CORRUPTED = "test_corrupted_"  # beginning of the names of splits of corrupted images


class Mean(NamedTuple):
    """A mean over seeds, the sample standard deviation (ddof 1, NaN for one seed), the count."""

    mean: float
    sd: float
    n: int


class Grid(NamedTuple):
    """A metric over a sweep, averaged over seeds.

    `paths` are the swept paths with more than one value, `axes` their sorted values. `mean`,
    `sd` and `seeds` (how many are finite) have one dimension per path; the mean is NaN where no
    value is finite. `chosen` is the position of the value chosen on the validation split, if any.
    """

    paths: tuple[str, ...]
    axes: tuple[tuple[Any, ...], ...]
    mean: np.ndarray
    sd: np.ndarray
    seeds: np.ndarray
    chosen: tuple[int, ...] | None


def main_metrics(report: RunSummary) -> tuple[str, ...]:
    """Return the metrics that compare variants, the main one first."""
    names = {
        name.rsplit("/", 1)[-1]
        for variant in report.variants
        for member in variant.members
        for scores in member.results.values()
        for name in scores
    }
    if "bits_per_byte" in names:
        return "accuracy", "ece", "bits_per_byte"
    return ("ap50", "ap", "detection_ece") if "ap50" in names else ("accuracy", "ece", "nll")


def number(value: Any) -> float:
    """Return a number as a float, and NaN for everything else (JSON has null for NaN)."""
    return float(value) if isinstance(value, int | float) else math.nan


def mean_over_seeds(values: Iterable[float]) -> Mean:
    """Average the finite values."""
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    if finite.size == 0:
        return Mean(math.nan, math.nan, 0)
    sd = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Mean(float(finite.mean()), sd, int(finite.size))


def roles_of(report: RunSummary) -> tuple[str, ...]:
    """Return all roles of all variants, the student first."""
    roles = dict.fromkeys(role for variant in report.variants for role in variant.roles)
    return tuple(sorted(roles, key=lambda role: role != "student"))


def variant_names(report: RunSummary) -> list[str]:
    """Return the names of all variants, in the order of the run."""
    return [variant.name for variant in report.variants]


def chosen_members(variant: VariantResult, role: str) -> list[MemberResult]:
    """Return the members (one per seed) chosen for `role` on the validation split.

    If only the seed was swept, these are all members.
    """
    if role in variant.chosen:
        chosen = variant.chosen[role].members
        return [member for member in variant.members if member.member in chosen]
    return [] if swept_paths(variant) else list(variant.members)


def count_seeds(variant: VariantResult, role: str) -> int:
    """Return the number of members with the chosen values, also of those that diverged."""
    chosen = chosen_members(variant, role)[:1]
    return sum(len(group) for group in by_values(variant) if any(m in group for m in chosen))


def by_values(variant: VariantResult) -> list[list[MemberResult]]:
    """Group members by their swept values without the seed, in the order of the sweep."""
    groups: dict[tuple, list[MemberResult]] = {}
    for member in variant.members:
        key = tuple((path, value) for path, value in member.values.items() if path != SEED)
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def summarise(variant: VariantResult, role: str, metric: str, split: str = "test") -> Mean:
    """Average `<role>/<metric>` over the chosen members."""
    return mean_over_seeds(
        member_score(member, f"{role}/{metric}", split) for member in chosen_members(variant, role)
    )


def diverged(report: RunSummary) -> list[tuple[str, MemberResult]]:
    """List the diverged members, each with the name of its variant."""
    return [
        (variant.name, member)
        for variant in report.variants
        for member in variant.members
        if member.diverged
    ]


def extra_splits(report: RunSummary) -> tuple[str, ...]:
    """Return the scored test splits other than "test", such as MNLI's "test_mismatched"."""
    return tuple(s for s in _splits(report, "test_") if not s.startswith(CORRUPTED))


def corrupted_splits(report: RunSummary) -> tuple[str, ...]:
    """Return the scored splits of corrupted test images."""
    return _splits(report, CORRUPTED)


def _splits(report: RunSummary, prefix: str) -> tuple[str, ...]:
    splits = {
        split
        for variant in report.variants
        for member in variant.members
        for split in member.results
        if split.startswith(prefix)
    }
    return tuple(sorted(splits))


def baseline_of(report: RunSummary, role: str) -> VariantResult:
    """Return the variant that others are compared with: "alone", else the first with the role."""
    variants = [variant for variant in report.variants if role in variant.roles]
    alone = [v for v in variants if "alone" in (v.name, v.title)]
    return (*alone, *variants, *report.variants)[0]


def paired(
    variant: VariantResult, baseline: VariantResult, role: str, metric: str, split: str = "test"
) -> np.ndarray:
    """Subtract the baseline from a variant, seed by seed.

    Returns:
      [pairs] `<role>/<metric>` of `variant` minus that of `baseline`, for the seeds in which the
      chosen members of both are finite.
    """
    scores, baseline_scores = (
        {
            member.values.get(SEED): member_score(member, f"{role}/{metric}", split)
            for member in chosen_members(of_variant, role)
        }
        for of_variant in (variant, baseline)
    )
    shared = [seed for seed in scores if seed in baseline_scores]
    differences = np.asarray([scores[seed] - baseline_scores[seed] for seed in shared])
    return differences[np.isfinite(differences)]


def sweep_grid(
    report: RunSummary, variant: VariantResult, role: str, metric: str, split: str = "validation"
) -> Grid:
    """Average `<role>/<metric>` over seeds at every point of a variant's sweep.

    Points that successive halving dropped have scores of an earlier step, and are left out.
    """
    order = {path: index for index, path in enumerate(report.selection.over)}
    paths = sorted(swept_paths(variant), key=lambda path: order.get(path, len(order)))
    axes = tuple(_sorted({member.values.get(p) for member in variant.members}) for p in paths)
    shape = tuple(len(axis) for axis in axes)
    cells: dict[tuple[int, ...], list[float]] = {index: [] for index in np.ndindex(*shape)}
    for member in variant.members:
        index = _index(member.values, paths, axes)
        if index is not None and member.dropped is None:
            cells[index].append(member_score(member, f"{role}/{metric}", split))
    mean, sd, count = (np.full(shape, math.nan) for _ in range(3))
    for index, values in cells.items():
        mean[index], sd[index], count[index] = mean_over_seeds(values)
    choice = variant.chosen.get(role)
    chosen = _index(choice.values, paths, axes) if choice and choice.values else None
    return Grid(tuple(paths), axes, mean, sd, count.astype(int), chosen)


def fills_grid(variant: VariantResult) -> bool:
    """Return whether the points of a sweep fill a quarter of the grid of their values or more.

    The points of a random sweep over several paths do not.
    """
    paths = swept_paths(variant)
    points = {tuple(member.values.get(path) for path in paths) for member in variant.members}
    cells = math.prod(len(set(values)) for values in zip(*points, strict=True))
    return cells <= 4 * len(points)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Shorten dotted paths to the fewest last parts that distinguish them."""
    names = {}
    for path in paths:
        parts = path.split(".")
        for size in range(1, len(parts) + 1):
            names[path] = ".".join(parts[-size:])
            others = [other.split(".")[-size:] for other in paths if other != path]
            if parts[-size:] not in others:
                break
    return names


def member_score(member: MemberResult, key: str, split: str) -> float:
    """Return a metric of a member on a split; NaN where it has none, or has diverged."""
    return math.nan if member.diverged else number(member.results.get(split, {}).get(key))


def swept_paths(variant: VariantResult) -> list[str]:
    """Return the swept paths, without the seed, in which a variant's members differ."""
    values: dict[str, set[Any]] = {}
    for member in variant.members:
        for path, value in member.values.items():
            values.setdefault(path, set()).add(value)
    return [path for path in values if path != SEED and len(values[path]) > 1]


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    """Sort numbers by size, followed by other values, by their text."""
    return tuple(sorted(values, key=lambda v: (math.isnan(number(v)), number(v), str(v))))


def _index(
    values: Mapping[str, Any], paths: Sequence[str], axes: Sequence[Sequence[Any]]
) -> tuple[int, ...] | None:
    """Return the position of a point of the sweep in the grid, None if it is not in it."""
    if any(values.get(path) not in axis for path, axis in zip(paths, axes, strict=True)):
        return None
    return tuple(axis.index(values.get(path)) for path, axis in zip(paths, axes, strict=True))
