"""What the numbers of a report.json say: means over seeds, grids of a sweep, paired differences.

A report is the nested dict that a run writes (see `load`); everything here only reads it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.errors import UserError

__all__ = [
    "Grid",
    "Mean",
    "baseline_of",
    "chosen_members",
    "diverged",
    "extra_splits",
    "load",
    "main_metrics",
    "mean_over_seeds",
    "number",
    "paired",
    "roles_of",
    "short_names",
    "summarise",
    "sweep_grid",
    "variant_named",
]

Report = Mapping[str, Any]
SEED = "seed"  # the one swept path that is averaged over, never chosen


class Mean(NamedTuple):
    """A mean over seeds, the sample standard deviation (ddof 1, NaN for one seed), the count."""

    mean: float
    sd: float
    n: int


class Grid(NamedTuple):
    """A metric over a sweep, averaged over seeds.

    `paths` are the swept paths with more than one value, `axes` their sorted values. `mean`,
    `sd` and `seeds` (how many are finite) have one dimension a path, with a NaN mean where no
    value is finite. `chosen` indexes the choice made on the validation split, if there is one.
    """

    paths: tuple[str, ...]
    axes: tuple[tuple[Any, ...], ...]
    mean: np.ndarray
    sd: np.ndarray
    seeds: np.ndarray
    chosen: tuple[int, ...] | None


def load(workdir: Path | str) -> dict[str, Any]:
    """Read and check `workdir/report.json`.

    Raises:
      UserError: no such file, not JSON, or a part that a page needs is missing.
    """
    path = Path(workdir) / "report.json"
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a workdir of `kdjax train`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); run `kdjax train` there again") from error
    problem = _problem(report)
    if problem:
        raise UserError(f"{path}: {problem}; run `kdjax train` there again")
    return report


def main_metrics(report: Report) -> tuple[str, ...]:
    """What a run is about, the first before all: accuracy, or average precision of detectors."""
    found = {
        name.rsplit("/", 1)[-1]
        for variant in report["variants"]
        for member in variant["members"]
        for values in member["results"].values()
        for name in values
    }
    return ("ap50", "ap", "detection_ece") if "ap50" in found else ("accuracy", "ece", "nll")


def _problem(report: Any) -> str | None:
    """Name the first part of a report that is missing or of the wrong kind."""
    if not isinstance(report, dict):
        return "not a JSON object"
    optional = {"data": dict, "versions": dict, "selection": dict, "config": dict}
    for key, kind in optional.items():
        if not isinstance(report.get(key, kind()), kind):
            return f"'{key}' is not a {kind.__name__}"
    variants = report.get("variants")
    if not isinstance(variants, list) or not variants:
        return "'variants' is not a list of at least one variant"
    for index, variant in enumerate(variants):
        where = f"variants[{index}]"
        if not isinstance(variant, dict) or not isinstance(variant.get("name"), str):
            return f"{where} has no 'name'"
        for key, kind in {"roles": dict, "members": list}.items():
            if not isinstance(variant.get(key), kind):
                return f"{where} has no '{key}' ({kind.__name__})"
        if not variant["roles"]:
            return f"{where} has no role in 'roles'"
        for row, member in enumerate(variant["members"]):
            parts = ("values", "results")
            if not isinstance(member, dict) or not all(
                isinstance(member.get(part), dict) for part in parts
            ):
                return f"{where}.members[{row}] has no 'values' and 'results' (dict)"
    return None


def number(value: Any) -> float:
    """Read a number of a report; None (JSON has no NaN) and anything else become NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def mean_over_seeds(values: Iterable[float]) -> Mean:
    """Average the finite values."""
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    if finite.size == 0:
        return Mean(math.nan, math.nan, 0)
    sd = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Mean(float(finite.mean()), sd, int(finite.size))


def roles_of(report: Report) -> tuple[str, ...]:
    """Name all roles of all variants, the student first."""
    roles = dict.fromkeys(role for variant in report["variants"] for role in variant["roles"])
    return tuple(sorted(roles, key=lambda role: role != "student"))


def variant_named(report: Report, name: str) -> Mapping[str, Any]:
    """Return a variant by name.

    Raises:
      UserError: no such variant.
    """
    for variant in report["variants"]:
        if variant["name"] == name:
            return variant
    names = ", ".join(variant["name"] for variant in report["variants"])
    raise UserError(f"no variant {name!r} in the report: it holds {names}")


def chosen_members(variant: Mapping[str, Any], role: str) -> list[Mapping[str, Any]]:
    """Return the members (one a seed) of the choice made on validation for `role`.

    Where nothing but the seed was swept, no choice was needed: all members count.
    """
    choice = (variant.get("chosen") or {}).get(role)
    if choice is not None:
        wanted = set(choice["members"])
        return [member for member in variant["members"] if member.get("member") in wanted]
    return [] if _swept_paths(variant) else list(variant["members"])


def summarise(variant: Mapping[str, Any], role: str, metric: str, split: str = "test") -> Mean:
    """Average `<role>/<metric>` over the chosen members."""
    return mean_over_seeds(
        _result(member, f"{role}/{metric}", split) for member in chosen_members(variant, role)
    )


def diverged(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    """List the members that stopped being finite, with their variant's name."""
    return [
        (variant["name"], member)
        for variant in report["variants"]
        for member in variant["members"]
        if member.get("diverged")
    ]


def extra_splits(report: Report) -> tuple[str, ...]:
    """Name the test splits beside "test" that were scored, such as MNLI's "test_mismatched"."""
    found = dict.fromkeys(
        split
        for variant in report["variants"]
        for member in variant["members"]
        for split in member["results"]
    )
    return tuple(sorted(split for split in found if split.startswith("test_")))


def baseline_of(report: Report) -> str:
    """Name the variant that others are compared with: "alone" if there is one, else the first."""
    names = [variant["name"] for variant in report["variants"]]
    return "alone" if "alone" in names else names[0]


def paired(
    report: Report, name: str, baseline: str, role: str, metric: str, split: str = "test"
) -> np.ndarray:
    """Subtract the baseline seed by seed.

    Returns:
      [pairs] `<role>/<metric>` of `name` minus that of `baseline`, for the seeds in which the
      chosen members of both are finite.
    """
    ours, theirs = (
        {
            member["values"].get(SEED): _result(member, f"{role}/{metric}", split)
            for member in chosen_members(variant_named(report, variant), role)
        }
        for variant in (name, baseline)
    )
    differences = np.asarray([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    return differences[np.isfinite(differences)]


def sweep_grid(
    report: Report, variant: str, role: str, metric: str, split: str = "validation"
) -> Grid:
    """Average `<role>/<metric>` over seeds at every point of a variant's sweep."""
    found = variant_named(report, variant)
    order = list((report.get("selection") or {}).get("over") or [])
    paths = sorted(_swept_paths(found), key=lambda p: order.index(p) if p in order else len(order))
    axes = tuple(_sorted({member["values"].get(p) for member in found["members"]}) for p in paths)
    shape = tuple(len(axis) for axis in axes)
    cells: dict[tuple[int, ...], list[float]] = {index: [] for index in np.ndindex(*shape)}
    for member in found["members"]:
        index = _index(member["values"], paths, axes)
        if index is not None:
            cells[index].append(_result(member, f"{role}/{metric}", split))
    means = {index: mean_over_seeds(values) for index, values in cells.items()}
    mean, sd, count = (np.full(shape, math.nan) for _ in range(3))
    for index, value in means.items():
        mean[index], sd[index], count[index] = value
    choice = ((found.get("chosen") or {}).get(role) or {}).get("values")
    chosen = _index(choice, paths, axes) if choice else None
    return Grid(tuple(paths), axes, mean, sd, count.astype(int), chosen)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Shorten dotted paths to their last parts, with as many parts as keep them apart."""
    names = {}
    for path in paths:
        parts = path.split(".")
        for size in range(1, len(parts) + 1):
            names[path] = ".".join(parts[-size:])
            others = [other.split(".")[-size:] for other in paths if other != path]
            if parts[-size:] not in others:
                break
    return names


def _result(member: Mapping[str, Any], key: str, split: str) -> float:
    return number((member["results"].get(split) or {}).get(key))


def _swept_paths(variant: Mapping[str, Any]) -> list[str]:
    """Find the paths, the seed apart, in which the members of a variant differ."""
    values: dict[str, set[Any]] = {}
    for member in variant["members"]:
        for path, value in member["values"].items():
            values.setdefault(path, set()).add(value)
    return [path for path, found in values.items() if path != SEED and len(found) > 1]


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    """Sort numbers by size, anything else behind them by its text."""
    return tuple(sorted(values, key=lambda v: (math.isnan(number(v)), number(v), str(v))))


def _index(
    values: Mapping[str, Any], paths: Sequence[str], axes: Sequence[Sequence[Any]]
) -> tuple[int, ...] | None:
    """Find a point of the sweep in the grid; None when it is not one of its values."""
    if any(values.get(path) not in axis for path, axis in zip(paths, axes, strict=True)):
        return None
    return tuple(axis.index(values.get(path)) for path, axis in zip(paths, axes, strict=True))
