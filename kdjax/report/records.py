"""Reading the files of finished runs, and writing pages and Markdown files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kdjax.errors import UserError
from kdjax.report import files
from kdjax.report.files import Path
from kdjax.report.results import BoundsSummary, RunSummary, from_json


class RunRecord(NamedTuple):
    """The files of one run that a page needs; `metrics` are the lines of its metrics.jsonl."""

    name: str
    report: RunSummary
    bounds: BoundsSummary | None = None
    metrics: Sequence[Mapping[str, Any]] = ()


def read_records(workdirs: Sequence[Path]) -> list[RunRecord]:
    """Read report.json and, if there is one, bounds.json of each workdir; no metrics.

    Raises:
      UserError: no workdir, or a file that is missing or damaged.
    """
    if not workdirs:
        raise UserError("no workdir: name at least one, as in `kdjax report runs/*`")
    return [RunRecord(files.name_of(w), read_report(w), _read_bounds(w)) for w in workdirs]


def with_titles(record: RunRecord) -> RunRecord:
    """Return a record whose variants have their titles as names, unless two titles are equal."""
    report, bounds = record.report, record.bounds
    names = {variant.name: variant.title or variant.name for variant in report.variants}
    if len(set(names.values())) < len(names):
        return record
    sources = {f"variant {name}": f"variant {title}" for name, title in names.items()}
    variants = tuple(
        replace(
            variant,
            name=names[variant.name],
            title=variant.name,
            roles={
                role: replace(player, source=sources.get(player.source or "", player.source))
                for role, player in variant.roles.items()
            },
        )
        for variant in report.variants
    )
    metrics = [
        {**line, "variant": names.get(line["variant"], "")} if "variant" in line else line
        for line in record.metrics
    ]
    if bounds is not None:
        networks = (replace(n, variant=names.get(n.variant, n.variant)) for n in bounds.networks)
        bounds = replace(bounds, networks=tuple(networks))
    return RunRecord(record.name, replace(report, variants=variants), bounds, metrics)


def finished_runs(workdirs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the workdirs with a report, and a message for each of the others.

    Raises:
      UserError: none of them has a report.
    """
    finished = [workdir for workdir in workdirs if files.exists(workdir / "report.json")]
    others = [_describe_unfinished(workdir) for workdir in workdirs if workdir not in finished]
    if not finished:
        raise UserError("; ".join(others))
    return finished, others


def _describe_unfinished(workdir: Path) -> str:
    if all(files.exists(workdir / name) for name in ("config.json", "metrics.jsonl")):
        return f"{workdir} is not finished; run its command again to resume it"
    if files.exists(workdir / "study.json"):
        return f"{workdir} contains a study, which has its own tables.md and figure.svg"
    return f"{workdir} contains no report.json; name a workdir of `kdjax train`"


def read_report(workdir: Path) -> RunSummary:
    """Read and check `workdir/report.json`.

    Raises:
      UserError: no such file, not JSON, or a missing part.
    """
    path = workdir / "report.json"
    try:
        return from_json(RunSummary, json.loads(files.read_text(path)))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a workdir of `kdjax train`"
        ) from error
    except UserError as error:
        raise UserError(f"{path}: {error}; run `kdjax train` there again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); run `kdjax train` there again") from error


def _read_bounds(workdir: Path) -> BoundsSummary | None:
    path = workdir / "bounds.json"
    if not files.exists(path):
        return None
    try:
        return from_json(BoundsSummary, json.loads(files.read_text(path)))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged; `kdjax bounds` writes it again") from error


def write_text(path: Path, text: str) -> Path:
    """Write a file and create its folders; return its path.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        files.write_text(path, text, atomic=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return path
