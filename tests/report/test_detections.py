"""Detection panels: contents of the page, and escaping of markup."""

import xml.etree.ElementTree as ET

from kdjax.report import detections
from kdjax.report.results import DetectionPicture, from_json


def picture(**changed):
    box = {"box": (10, 20, 60.25, 80), "name": "cat & <dog>", "score": None, "class": 3}
    detection = {**box, "score": 0.874}
    content = {
        "title": "test: a.jpg",
        "width": 120,
        "height": 90,
        "jpeg": "QUJD",
        "panels": [
            {"title": "truth", "boxes": [box]},
            {"title": "kd, student", "boxes": [detection]},
            {"title": "nothing", "boxes": []},
        ],
        **changed,
    }
    return from_json(DetectionPicture, content)


def test_each_photograph_is_a_row_of_panels():
    text = detections.as_html([picture(), picture(title="test: b.jpg")])
    page = ET.fromstring(f"<body>{text}</body>")
    drawn = list(page.iter("svg"))
    assert len(drawn) == 6
    assert drawn[0].get("viewBox") == "0 0 120 90"
    first = drawn[0].find("rect")
    assert (first.get("x"), first.get("width"), first.get("height")) == ("10.0", "50.2", "60.0")
    assert drawn[0].find("text").text == "cat & <dog>"
    assert drawn[1].find("text").text == "cat & <dog> 87"
    assert drawn[1].find("rect").get("stroke") == first.get("stroke")  # a class has one colour
    assert drawn[2].find("rect") is None
    assert [c.text for c in page.iter("figcaption")][:2] == ["truth", "kd, student"]


def test_without_photographs_there_are_no_panels():
    assert detections.as_html([]) == ""
