"""The tables of one run or several as Markdown, for a README or a paper's draft."""

from collections.abc import Sequence
from pathlib import Path

from kdjax.errors import UserError
from kdjax.report import bounds_tables, summary_text, tables
from kdjax.report.statistics import load

__all__ = ["combine"]


def combine(workdirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write the results and the paired differences of all workdirs into one Markdown file.

    Raises:
      UserError: no workdir, a damaged report.json, or the file cannot be written.
    """
    if not workdirs:
        raise UserError("no workdir given: name at least one, `kdjax report runs/*`")
    parts = []
    for workdir in workdirs:
        report = load(workdir)
        paired = tables.differences(report)
        parts += [f"## {Path(workdir).resolve().name}: {report.get('title', '')}"]
        parts += [summary_text.summary(report), *map(tables.as_markdown, tables.everything(report))]
        parts += [] if paired is None else [tables.as_markdown(paired)]
        bounds = bounds_tables.read_bounds(Path(workdir))
        parts += (
            []
            if bounds is None
            else [tables.as_markdown(bounds_tables.bounds_table(bounds["networks"]))]
        )
        parts += [f"Command: `{report.get('command', '')}`"]
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out
