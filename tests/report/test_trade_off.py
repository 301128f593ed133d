"""Accuracy against calibration error: points, bars, names, and what is not drawn."""

import dataclasses
import itertools
import re

import pytest

from kdjax.report import html
from kdjax.report.records import RunRecord
from kdjax.report.results import RunSummary, from_json
from kdjax.report.statistics import summarise
from kdjax.report.trade_off import points_of, trade_off

NAMES = ("alone", "kd", "sinkd", "bdkd")


@pytest.fixture
def report(build_report):
    return from_json(RunSummary, build_report(NAMES, roles=("student",), sweep={}, seeds=3))


def test_a_point_is_the_mean_and_sd_in_percent(report):
    points = points_of([("run", report)], "student", "accuracy", "ece")
    assert [point.name for point in points] == list(NAMES)
    score = summarise(report.variants[1], "student", "ece")
    assert points[1].y == pytest.approx((100 * score.mean, 100 * score.sd, 3))


def test_every_variant_has_its_name_in_the_figure(report):
    figure = trade_off([("run", report)], "student")
    assert figure is not None
    for text in (*NAMES, "accuracy %", "ECE %"):
        assert f">{text}<" in figure


def test_names_of_coinciding_points_do_not_overlap(report):
    (first, *_) = report.variants
    same = tuple(dataclasses.replace(first, name=name) for name in NAMES)
    figure = trade_off([("run", dataclasses.replace(report, variants=same))], "student")
    assert figure is not None
    pattern = r' x="([\d.]+)" y="([\d.]+)"[^>]*>(alone|kd|sinkd|bdkd)<'
    names = [(float(x), float(y), name) for x, y, name in re.findall(pattern, figure)]
    assert len(names) == len(NAMES)
    for one, other in itertools.combinations(sorted(names), 2):
        # a letter is about 5 points wide and 8 high
        assert other[0] - one[0] > 5 * len(one[2]) or abs(one[1] - other[1]) > 8


def test_a_calibration_error_ten_times_as_large_gets_a_log_axis(report):
    last = report.variants[-1]
    members = tuple(
        dataclasses.replace(
            m, results={**m.results, "test": {**m.results["test"], "student/ece": 0.9}}
        )
        for m in last.members
    )
    changed = (*report.variants[:-1], dataclasses.replace(last, members=members))
    figure = trade_off([("run", dataclasses.replace(report, variants=changed))], "student")
    assert figure is not None
    assert ">10<" in figure
    assert ">50<" in figure


def test_fewer_than_three_points_or_missing_metrics_are_not_drawn(report):
    two = dataclasses.replace(report, variants=report.variants[:2])
    assert trade_off([("run", two)], "student") is None
    assert trade_off([("run", report)], "teacher") is None
    assert points_of([("run", report)], "student", "accuracy", "no_such_metric") == []


def test_a_name_wider_than_the_figure_is_drawn(report):
    (first, *others) = report.variants
    long = dataclasses.replace(first, name="x" * 300)
    figure = trade_off([("run", dataclasses.replace(report, variants=(long, *others)))], "student")
    assert figure is not None
    assert "x" * 300 in figure


def test_the_pages_of_one_and_several_runs_have_the_figure(report):
    assert html.page([RunRecord("a", report)]).count('aria-label="accuracy % against ECE %') == 1
    both = html.page([RunRecord("a", report), RunRecord("b", report)])
    assert both.count('aria-label="accuracy % against ECE %') == 3
    assert ">b: kd<" in both
    other = dataclasses.replace(report, data=dataclasses.replace(report.data, name="other"))
    apart = html.page([RunRecord("a", report), RunRecord("b", other)])
    assert apart.count('aria-label="accuracy % against ECE %') == 2
