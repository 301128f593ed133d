"""Tables of every swept value."""

import functools

import numpy as np

from kdjax.report import html, statistics, sweep_table
from kdjax.report.records import RunRecord
from kdjax.report.results import RunSummary, from_json

typed = functools.partial(from_json, RunSummary)
RATE = "roles.*.optimizer.learning_rate"


def test_each_row_is_the_mean_over_the_seeds_of_a_value(report):
    student, teacher = sweep_table.every_value(typed(report))
    assert student.header[:4] == ("variant", "learning_rate", "seeds", "validation accuracy %")
    assert student.header[4] == "test accuracy %"
    assert len(student.rows) == 3 * 4
    assert student.rules == {4, 8}
    assert [row[0] for row in teacher.rows] == 4 * ["alone"] + 4 * ["bdkd"]  # frozen in kd
    members = report["variants"][2]["members"]
    for row in student.rows[8:]:
        own = [m for m in members if f"{m['values'][RATE]:g}" == row[1]]
        assert len(own) == 3
        assert row[2] == "3"
        for cell, split in ((row[3], "validation"), (row[4], "test")):
            values = [100 * m["results"][split]["student/accuracy"] for m in own]
            assert cell == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert student.header[-1] == "test agreement"
    assert student.rows[0][-1] == "0.9500 ± 0.0000"


def test_the_chosen_values_are_bold(report):
    table = sweep_table.every_value(typed(report))[0]
    (row,) = [row for row, column in table.bold if 4 <= row < 8]
    chosen = report["variants"][1]["chosen"]["student"]["values"][RATE]
    assert table.rows[row][:2] == ("kd", f"{chosen:g}")
    assert {column for _, column in table.bold} == {1}


def test_diverged_seeds_are_counted(report):
    for member in report["variants"][0]["members"][:3]:
        scores = member["results"]["validation"] | {"student/accuracy": None}
        member["results"] = {"validation": scores if member["member"] == 0 else {}, "test": {}}
    report["variants"][0]["members"][3]["diverged"] = "step 12: student/ce is not finite"
    rows = sweep_table.every_value(typed(report))[0].rows
    assert rows[0][2:6] == ("0 of 3", "-", "-", "-")
    assert rows[1][2] == "2 of 3"


def test_points_that_halving_dropped_name_their_step(report):
    variant = report["variants"][0]
    values = variant["members"][0]["values"][RATE]
    for member in variant["members"]:
        if member["values"][RATE] == values:
            member["dropped"] = 20
    table = sweep_table.every_value(typed(report))[0]
    assert [row[0] for row in table.rows[:2]] == ["alone to step 20", "alone"]
    assert table.notes[1].startswith("To step N: dropped by successive halving")
    summary = typed(report)
    grid = statistics.sweep_grid(summary, summary.variants[0], "student", "accuracy")
    assert np.isnan(grid.mean).tolist() == [True, False, False, False]


def test_runs_that_sweep_only_seeds_have_none(build_report):
    report = typed(build_report(sweep={}))
    assert sweep_table.every_value(report) == []
    assert "every swept value" not in html.page([RunRecord("run", report)])


def test_the_page_has_the_tables(report):
    page = html.page([RunRecord("run", typed(report))])
    assert "student: every swept value, mean ± sd over seeds" in page
