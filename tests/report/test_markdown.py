"""The Markdown file has the same numbers as the tables, and one section for each run."""

import json

import pytest

from kdjax.errors import UserError
from kdjax.report import markdown, tables
from kdjax.report.results import RunSummary, from_json
from kdjax.report.table import as_markdown


def test_every_run_has_its_tables_and_its_command(tmp_path, report):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    out = markdown.combine([tmp_path / "one", tmp_path / "two"], tmp_path / "deep" / "all.md")
    text = out.read_text()
    assert [line[:7] for line in text.split("\n") if line.startswith("## ")] == [
        "## one:",
        "## two:",
    ]
    assert text.count(as_markdown(tables.results(from_json(RunSummary, report)))) == 2
    assert text.count(f"Command: `{report['command']}`") == 2


def test_a_write_error_names_the_file(tmp_path, report):
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        markdown.combine([tmp_path], tmp_path / "file" / "all.md")
    with pytest.raises(UserError, match="no workdir"):
        markdown.combine([], tmp_path / "all.md")
