"""The table of corrupted test images."""

import dataclasses

import pytest

from kdjax.report.results import RunSummary, from_json
from kdjax.report.robustness_table import robustness
from kdjax.report.statistics import extra_splits


@pytest.fixture
def report(build_report):
    """Three seeds, with an accuracy that is .1 and .3 lower on two corrupted splits."""
    report = from_json(
        RunSummary, build_report(("default",), roles=("student",), sweep={}, seeds=3)
    )
    (variant,) = report.variants
    members = []
    for member in variant.members:
        clean, results = member.results["test"], dict(member.results)
        for name, loss in (("blur_1", 0.1), ("blur_2", 0.3), ("noise_1", 0.5)):
            lower = {**clean, "student/accuracy": clean["student/accuracy"] - loss}
            results[f"test_corrupted_{name}"] = lower
        members.append(dataclasses.replace(member, results=results))
    variant = dataclasses.replace(variant, members=tuple(members))
    return dataclasses.replace(report, variants=(variant,))


def test_cells_are_means_over_splits_and_seeds(report):
    table = robustness(report)
    row = dict(zip(table.header, table.rows[0], strict=True))
    clean = float(row["accuracy %, clean"].split(" ")[0])
    for name, loss in (("corrupted", 30.0), ("blur", 20.0), ("noise", 50.0)):
        mean = float(row[f"accuracy %, {name}"].split(" ")[0])
        assert clean - mean == pytest.approx(loss, abs=0.02)
    assert row["ECE %, clean"] == row["ECE %, corrupted"]


def test_a_report_without_corrupted_splits_has_none(build_report, report):
    assert robustness(from_json(RunSummary, build_report(("default",)))) is None
    assert extra_splits(report) == ()
