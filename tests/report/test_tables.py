import copy
import functools
import io
import json
import math

import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.report import statistics, tables
from kdjax.report.metric_format import column_of, format_mean
from kdjax.report.records import read_report
from kdjax.report.results import RunSummary, from_json
from kdjax.report.summary_text import summary
from kdjax.report.table import BOLD_NOTE, as_html, as_markdown, show

typed = functools.partial(from_json, RunSummary)


def _test_values(report, variant, role, metric):
    entry = next(v for v in report["variants"] if v["name"] == variant)
    selected = entry["chosen"][role]["members"]
    return np.array([entry["members"][m]["results"]["test"][f"{role}/{metric}"] for m in selected])


def test_results_are_the_mean_and_sample_sd(report):
    table = tables.results(typed(report))
    assert table.header[:5] == ("variant", "role", "accuracy %", "learning_rate", "seeds")
    assert [row[:2] for row in table.rows] == [
        ("alone", "student"), ("kd", "student"), ("bdkd", "student"),
        ("alone", "teacher"), ("kd", "teacher (frozen)"), ("bdkd", "teacher"),
    ]  # fmt: skip
    units = {"accuracy %": ("accuracy", 100, 2), "ECE %": ("ece", 100, 2), "NLL": ("nll", 1, 3),
             "Brier": ("brier", 1, 3), "fitted T": ("temperature", 1, 2)}  # fmt: skip
    for row in table.rows:
        for title, (metric, scale, digits) in units.items():
            values = scale * _test_values(report, row[0], row[1].split()[0], metric)
            expected = f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"
            assert row[table.header.index(title)] == expected
        assert row[4] == "3"
        assert (row[3] == "-") == ("frozen" in row[1])
    assert table.rules == {3}


def test_frozen_networks_of_equal_scores_share_a_row(build_report):
    report = build_report(variants=("kd", "alone"))
    report["variants"].append({**copy.deepcopy(report["variants"][0]), "name": "dkd"})
    report["variants"].append({**copy.deepcopy(report["variants"][0]), "name": "other"})
    for member in report["variants"][-1]["members"]:
        member["results"]["test"]["teacher/accuracy"] -= 0.1
    rows = [row[:2] for row in tables.results(typed(report)).rows]
    assert rows[:4] == [(name, "student") for name in ("kd", "alone", "dkd", "other")]
    frozen = [("kd and 1 more", "teacher (frozen)"), ("other", "teacher (frozen)")]
    assert rows[4:] == [frozen[0], ("alone", "teacher"), frozen[1]]


def test_many_swept_paths_have_one_column(report):
    paths = [f"roles.student.terms.{name}.weight" for name in "abcde"]
    for path, variant in zip(paths, report["variants"], strict=False):
        values = {path: 0.25, "roles.student.terms.e.weight": 2}
        variant["chosen"] = {r: {**c, "values": values} for r, c in variant["chosen"].items()}
    report["selection"]["over"] = paths
    table = tables.results(typed(report))
    assert table.header[:5] == ("variant", "role", "accuracy %", "seeds", "ECE %")
    assert table.header[-1] == "chosen values"
    assert [row[-1] for row in table.rows[:3]] == [f"{n}.weight 0.25, e.weight 2" for n in "abc"]
    assert table.rows[4][-1] == "-"  # the frozen teacher
    best = max(table.rows[:3], key=lambda row: float(row[2].split()[0]))
    bold = {place for row, place in table.bold if table.rows[row] == best}
    assert 2 in bold
    assert bold <= {2, *map(table.header.index, ("NLL", "Brier"))}
    text = summary(typed(report))
    assert "The swept values of each variant were chosen by the mean accuracy" in text


def test_the_best_mean_of_a_role_is_bold(report):
    table = tables.results(typed(report))
    for title, metric, best in (("accuracy %", "accuracy", np.argmax), ("NLL", "nll", np.argmin)):
        column = table.header.index(title)
        for first, role in ((0, "student"), (3, "teacher")):
            names = [row[0] for row in table.rows[first : first + 3]]
            means = [_test_values(report, name, role, metric).mean() for name in names]
            bold = {row for row, c in table.bold if c == column and first <= row < first + 3}
            assert bold == {first + best(means)}
    assert not {c for _, c in table.bold} & {table.header.index("fitted T"), 0, 1, 3, 4}


@pytest.mark.parametrize(
    ("metric", "lower", "best"),
    [
        ("nll_calibrated", True, np.argmin),
        ("adaptive_ece", True, None),
        ("own_error", True, np.argmin),
        ("own_score", False, np.argmax),
    ],
)
def test_a_metric_without_a_column_is_bold_where_it_is_best(report, metric, lower, best):
    report["selection"] |= {"metric": metric, "lower_is_better": lower}
    for variant in report["variants"]:
        for member in variant["members"]:
            scores = member["results"]["test"]
            scores[f"student/{metric}"] = scores["student/nll"]
    means = [_test_values(report, n, "student", metric).mean() for n in ("alone", "kd", "bdkd")]
    bold = {row for row, column in tables.results(typed(report)).bold if column == 2 and row < 3}
    assert bold == (set() if best is None else {best(means)})


def test_sweep_grid_averages_over_seeds(report):
    path = "roles.*.optimizer.learning_rate"
    grid = statistics.sweep_grid(typed(report), typed(report).variants[2], "student", "accuracy")
    assert grid.paths == (path,)
    assert grid.axes == ((0.003, 0.01, 0.03, 0.1),)
    for index, value in enumerate(grid.axes[0]):
        scores = [
            m["results"]["validation"]["student/accuracy"]
            for m in report["variants"][2]["members"]
            if m["values"][path] == value
        ]
        np.testing.assert_allclose(grid.mean[index], np.mean(scores), rtol=1e-12)
        np.testing.assert_allclose(grid.sd[index], np.std(scores, ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(grid.seeds, 3)
    chosen = report["variants"][2]["chosen"]["student"]["values"][path]
    assert grid.axes[0][grid.chosen[0]] == chosen


def test_sweep_grid_of_two_paths_and_a_missing_point(build_report):
    sweep = {"a.temperature": [4.0, 1.0, 2.0], "b.temperature": [0.5, 1.5]}
    report = build_report(("default",), sweep=sweep)
    members = report["variants"][0]["members"]
    remaining = [m for m in members if list(m["values"].values())[1:] != [1.0, 1.5]]
    report["variants"][0]["members"] = remaining
    grid = statistics.sweep_grid(typed(report), typed(report).variants[0], "student", "accuracy")
    assert grid.axes == ((1.0, 2.0, 4.0), (0.5, 1.5))
    assert math.isnan(grid.mean[0, 1])
    assert grid.seeds.tolist() == [[3, 0], [3, 3], [3, 3]]
    assert statistics.short_names(list(grid.paths)) == {p: p for p in sweep}


def test_paired_differences_are_by_seed(report):
    chosen = report["variants"][2]["chosen"]["student"]["members"]
    chosen.reverse()  # members are not in the order of seeds
    table = tables.differences(typed(report))
    assert table is not None
    row = next(row for row in table.rows if row[0] == "bdkd")
    bdkd = 100 * _test_values(report, "bdkd", "student", "accuracy")[::-1]
    alone = 100 * _test_values(report, "alone", "student", "accuracy")
    difference = bdkd - alone
    assert row[3] == "3"
    expected = [np.sum(difference > 0), np.sum(difference == 0), np.sum(difference < 0)]
    assert row[2] == "/".join(map(str, expected))
    assert row[1] == f"{difference.mean():+.2f} ± {difference.std(ddof=1):.2f}"


def test_diverged_members_are_excluded_and_named(report):
    variant = report["variants"][1]
    lost, *rest = variant["chosen"]["student"]["members"]
    variant["chosen"]["student"]["members"] = rest
    variant["members"][lost]["diverged"] = "step 12: student/ce is not finite"
    table = tables.results(typed(report))
    row = table.rows[1]
    assert row[4] == "2 of 3"
    rest = [variant["members"][m]["results"]["test"]["student/accuracy"] for m in rest]
    assert row[2] == f"{100 * np.mean(rest):.2f} ± {100 * np.std(rest, ddof=1):.2f}"
    assert any("kd: 1 diverged" in note and "step 12" in note for note in table.notes)
    pairs = tables.differences(typed(report))
    assert pairs is not None
    assert pairs.rows[0][3] == "2"


def test_one_variant_one_member_one_role(build_report):
    report = build_report(("default",), roles=("student",), sweep={}, seeds=1)
    table = tables.results(typed(report))
    value = report["variants"][0]["members"][0]["results"]["test"]["student/accuracy"]
    assert table.header[:4] == ("variant", "role", "accuracy %", "seeds")
    assert table.rows[0][:4] == ("default", "student", f"{100 * value:.2f}", "1")
    assert not table.bold
    assert tables.differences(typed(report)) is None
    assert (
        statistics.sweep_grid(typed(report), typed(report).variants[0], "student", "accuracy").paths
        == ()
    )


def test_a_sweep_without_selection_is_not_averaged(report):
    for variant in report["variants"]:
        del variant["chosen"]
    assert {row[2:4] for row in tables.results(typed(report)).rows} == {("-", "0")}


def test_renderers(report):
    table = tables.results(typed(report))._replace(rows=(("a|b*<i>[/]", *["x"] * 9),) * 2)
    markdown = as_markdown(table)
    assert "a\\|b\\*\\<i>\\[/]" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines()[2:6]}) == 1
    page = as_html(table)
    assert "a|b*&lt;i&gt;[/]" in page
    assert 'class="number best"' in page
    out = io.StringIO()
    show(table, file=out)
    assert "a|b*<i>[/]" in out.getvalue()


def test_files_have_complete_lines(report):
    out = io.StringIO()
    table = tables.results(typed(report))
    show(table, file=out)
    assert all(cell in out.getvalue() for row in table.rows for cell in row)
    assert BOLD_NOTE in table.notes
    assert BOLD_NOTE not in out.getvalue()  # a file has no bold


def test_the_overview_has_a_row_for_each_run_and_variant(report, build_report):
    lone = build_report(("default",), roles=("peer_a", "peer_b"), sweep={}, seeds=2)
    table = tables.overview([("one", typed(report)), ("two", typed(lone))])
    assert [row[0] for row in table.rows] == ["one"] * 3 + ["two"]
    assert table.rows[-1][2:5] == ("default", "peer_a", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("variants"), "variants: Field required"),
        (lambda r: r.update(variants={}), "variants: Input should be a valid array"),
        (lambda r: r.update(variants=[]), "variants: .* at least 1 item"),
        (lambda r: r.update(config=[1]), "config: Input should be an object"),
        (lambda r: r["variants"][1].pop("name"), r"variants\.1\.name: Field required"),
        (lambda r: r["variants"][0].pop("members"), r"variants\.0\.members: Field required"),
        (lambda r: r["variants"][0].update(roles={}), r"variants\.0\.roles: .* at least 1 item"),
        (lambda r: r["variants"][0]["members"][2].pop("results"), r"members\.2\.results: Field"),
    ],
)
def test_damaged_report_is_one_line(tmp_path, report, change, message):
    damaged = copy.deepcopy(report)
    change(damaged)
    (tmp_path / "report.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=message) as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_report_and_no_json(tmp_path):
    with pytest.raises(UserError, match=r"report\.json: cannot be read"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"title": ')
    with pytest.raises(UserError, match=r"report\.json: not JSON"):
        read_report(tmp_path)


def test_a_further_test_split_has_a_table_of_its_own(report):
    lone = tables.everything(typed(report))
    assert lone == [tables.results(typed(report))]
    shift = 0.01
    for variant in report["variants"]:
        for member in variant["members"]:
            scores = member["results"]["test"]
            moved = {k: v - shift if k.endswith("/accuracy") else v for k, v in scores.items()}
            member["results"]["test_mismatched"] = moved
    report["variants"][0]["members"][0]["diverged"] = "loss is nan"
    first, second = tables.everything(typed(report))
    assert [t.title.split(",")[0] for t in (first, second)] == ["test", "test_mismatched"]
    column = second.header.index("accuracy %")
    for row in second.rows:
        values = 100 * (_test_values(report, row[0], row[1].split()[0], "accuracy") - shift)
        assert row[column] == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
    assert first.bold == second.bold
    assert any("diverged" in note for note in first.notes)
    assert second.notes == ()


def test_seeds_that_break_down_are_counted(report):
    variant = report["variants"][2]
    low = variant["chosen"]["teacher"]["members"][1]
    variant["members"][low]["results"]["test"]["teacher/accuracy"] = 0.05
    notes = tables.results(typed(report)).notes
    assert [note for note in notes if "broke down" in note] == [
        "bdkd teacher: 1 of 3 seeds broke down (accuracy below half of the best seed's)."
    ]


def test_the_loss_of_a_player_and_the_meaning_of_its_column(report):
    report["variants"][0]["roles"]["student"]["loss"] = "ce + T^2 balanced_kl(teacher, T = 2)"
    table = tables.players(typed(report))
    assert "ce + T^2 balanced_kl(teacher, T = 2)" in {row[4] for row in table.rows}
    assert '" title="the loss of the role, ' in as_html(table)


def test_means_of_networks_that_broke_down_stay_short():
    column = column_of("nll")
    assert format_mean(statistics.mean_over_seeds([9e5, 9e5 + 2]), column) == "9.0e+05 ± 1.414"
    assert format_mean(statistics.mean_over_seeds([0.1, 0.3]), column) == "0.200 ± 0.141"
