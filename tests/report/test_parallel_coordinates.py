"""Parallel coordinates: lines, labels, and what is not drawn."""

import dataclasses

from kdjax.report import html, plots, summary_text, tables
from kdjax.report.parallel_coordinates import _heights, parallel_coordinates
from kdjax.report.records import RunRecord
from kdjax.report.results import MemberResult, RunSummary, from_json
from kdjax.report.statistics import fills_grid

SWEEP = {"t.temperature": [1.0, 2.0], "t.rate": [0.001, 0.1]}


def _report(build_report, sweep, **settings):
    report = build_report(("default",), roles=("student",), sweep=sweep, **settings)
    return from_json(RunSummary, report)


def _drawn(variant, count):
    """Return the variant with members of a random sweep, no two with a common value."""
    members = tuple(
        MemberResult(
            member=row,
            values={"seed": 0, "t.temperature": 1.0 + row / 7, "t.rate": 0.01 * (row + 1)},
            results={"validation": {"student/accuracy": 0.5 + row / 100}},
        )
        for row in range(count)
    )
    choice = dataclasses.replace(variant.chosen["student"], members=(count - 1,))
    return dataclasses.replace(variant, members=members, chosen={"student": choice})


def test_a_line_for_each_member_and_dashes_for_the_dropped(build_report):
    (variant,) = _report(build_report, SWEEP, seeds=2).variants
    figure = parallel_coordinates(variant, "student", "accuracy", "student")
    assert figure is not None
    assert figure.count("stroke-width: 2.4") == 2 + 1  # the chosen seeds and the legend
    for text in ("temperature", "rate", "validation accuracy %", ">chosen<", ">0.001<", ">2<"):
        assert text in figure
    assert "dropped" not in figure
    outside = [m for m in variant.members if m.member not in variant.chosen["student"].members]
    lost = {m.member: dataclasses.replace(m, dropped=30) for m in outside[:3]}
    members = tuple(lost.get(member.member, member) for member in variant.members)
    variant = dataclasses.replace(variant, members=members)
    figure = parallel_coordinates(variant, "student", "accuracy", "student")
    assert figure is not None
    assert figure.count("stroke-dasharray") == 3 + 1
    assert ">dropped<" in figure


def test_one_swept_path_or_no_finite_value_is_not_drawn(build_report):
    sweep = {"t.rate": [0.1, 0.2]}
    (variant,) = _report(build_report, sweep).variants
    assert parallel_coordinates(variant, "student", "accuracy", "") is None
    (variant,) = _report(build_report, SWEEP).variants
    assert parallel_coordinates(variant, "student", "no_such_metric", "") is None


def test_wide_ranges_of_positive_numbers_are_logarithmic():
    assert _heights([0.001, 0.01, 0.1]).tolist() == [0.0, 0.5, 1.0]
    assert _heights([1.0, 2.0, 3.0]).tolist() == [0.0, 0.5, 1.0]
    assert _heights([2.0, 2.0]).tolist() == [0.5, 0.5]
    assert _heights(["b", "a"]).tolist() == [1.0, 0.0]


def test_a_random_sweep_over_two_paths_has_lines_and_no_heat_map(build_report):
    report = _report(build_report, SWEEP, seeds=1)
    assert fills_grid(report.variants[0])
    report = dataclasses.replace(report, variants=(_drawn(report.variants[0], 9),))
    assert not fills_grid(report.variants[0])
    page = html.page([RunRecord("run", report)])
    assert "members of the sweep over t.temperature, t.rate" in page
    assert "accuracy over t.temperature" not in page
    assert plots.sweep_curve(report, "student", "accuracy", "t.rate") is None


def test_dropped_members_are_listed_and_summarized(build_report):
    report = _report(build_report, SWEEP, seeds=1)
    (variant,) = report.variants
    assert tables.dropped(report) is None
    steps = {0: 30, 1: 10, 3: 1000}
    members = tuple(dataclasses.replace(m, dropped=steps.get(m.member)) for m in variant.members)
    variant = dataclasses.replace(variant, members=members)
    report = dataclasses.replace(report, variants=(variant,))
    table = tables.dropped(report)
    assert table is not None
    assert table.header[:6] == ("variant", "member", "after step", "seed", "temperature", "rate")
    assert [row[:3] for row in table.rows] == [
        ("default", "3", "1,000"),
        ("default", "0", "30"),
        ("default", "1", "10"),
    ]
    score = members[3].results["validation"]["student/accuracy"]
    assert table.rows[0][-1] == f"{100 * score:.2f}"
    text = "1 of 4 members were dropped after step 10, 1 after step 30 and 1 after step 1,000."
    assert text in summary_text.summary(report)
