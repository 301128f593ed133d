"""Photographs with the boxes of the labels and of each network's detections, side by side."""

from collections.abc import Sequence

from kdjax.report.results import DetectionPicture
from kdjax.report.template import render

PANEL_WIDTH = 240  # pixels on the page
# A class has the same colour in every panel.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def as_html(pictures: Sequence[DetectionPicture]) -> str:
    """Return a row of panels for each photograph; "" if there are none."""
    if not pictures:
        return ""
    return render(
        "detections.html.j2", pictures=pictures, colours=_COLOURS, panel_width=PANEL_WIDTH
    )
