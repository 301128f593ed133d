"""The tables of one or several runs as Markdown."""

from collections.abc import Sequence

from kdjax.report import bounds_tables, cost_table, summary_text, sweep_table, tables
from kdjax.report.files import Path
from kdjax.report.records import RunRecord, read_records, with_titles, write_text
from kdjax.report.table import Table
from kdjax.report.template import render


def combine(workdirs: Sequence[Path], out: Path) -> Path:
    """Write the results and the paired differences of all workdirs into one Markdown file.

    Raises:
      UserError: no workdir, a damaged file, or `out` cannot be written.
    """
    runs = [
        {
            "name": record.name,
            "report": record.report,
            "summary": summary_text.summary(record.report),
            "tables": _tables(record),
        }
        for record in map(with_titles, read_records(workdirs))
    ]
    return write_text(out, render("runs.md.j2", runs=runs))


def _tables(record: RunRecord) -> list[Table]:
    differences, bounds = tables.differences(record.report), record.bounds
    costs = cost_table.costs(record.report)
    optional = [differences, costs, bounds and bounds_tables.bounds_table(bounds.networks)]
    optional.append(tables.dropped(record.report))
    optional += sweep_table.every_value(record.report)
    return [*tables.everything(record.report), *(table for table in optional if table)]
