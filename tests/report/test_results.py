"""Types of results: their JSON form is that of the files, and errors name the wrong part."""

import gzip
import json
import math
import pathlib

import pytest

from kdjax.errors import UserError
from kdjax.report.results import (
    BoundsSummary,
    DetectionPicture,
    MemberResult,
    Reliability,
    RunSummary,
    VariantResult,
    from_json,
    to_json,
)

ARCHIVE = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "results"


@pytest.mark.parametrize(
    "path", sorted(ARCHIVE.rglob("report.json.gz")), ids=lambda path: path.parent.name
)
def test_archived_reports_are_unchanged_by_a_round_trip(path):
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert json.dumps(to_json(from_json(RunSummary, content))) == json.dumps(content)


def test_archived_bounds_are_unchanged_by_a_round_trip():
    content = json.loads(gzip.decompress((ARCHIVE / "digits_bounds/bounds.json.gz").read_bytes()))
    assert json.dumps(to_json(from_json(BoundsSummary, content))) == json.dumps(content)


def test_a_detection_keeps_its_class_and_ground_truth_has_no_score():
    box = {"box": [0.0, 1.0, 2.0, 3.5], "score": None, "class": 4, "name": "cat"}
    panels = [{"title": "truth", "boxes": [box, {**box, "score": 0.5}]}]
    content = {"title": "a.jpg", "width": 9, "height": 8, "jpeg": "QUJD", "panels": panels}
    picture = from_json(DetectionPicture, content)
    assert picture.panels[0].boxes[0].label == 4
    assert picture.panels[0].boxes[0].score is None
    assert to_json(picture) == content


def test_values_that_are_not_finite_are_null_in_json():
    member = MemberResult(values={"seed": 0}, results={"test": {"a": math.nan, "b": -math.inf}})
    content = to_json(member)
    assert content["results"] == {"test": {"a": None, "b": None}}
    assert math.isnan(from_json(MemberResult, content).results["test"]["a"])


def test_seconds_and_detections_of_a_variant_are_not_written():
    variant = VariantResult(name="a", roles={}, members=(), seconds=3.0, detections={"test": {}})
    assert set(to_json(variant)) == {"name", "roles", "members", "chosen", "reliability"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the content: Input should be an object"),
        ({}, "before: Field required"),
        ({"before": 3}, "before: Input should be an object"),
        ({"before": {"count": [], "accuracy": []}}, r"before\.confidence: Field required"),
        (
            {"before": {"count": [], "accuracy": [1, "2"], "confidence": []}},
            r"before\.accuracy\.1: Input should be a valid number",
        ),
    ],
)
def test_a_wrong_part_is_named(content, message):
    with pytest.raises(UserError, match=message):
        from_json(Reliability, content)
