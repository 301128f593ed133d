"""Photographs with drawn boxes: the truth, and beside it what each detector says."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_html"]

WIDTH = 240  # pixels of a panel on the page
# a class keeps its colour wherever it is drawn
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def as_html(pictures: Sequence[Mapping[str, Any]]) -> str:
    """Return a row of panels for each photograph; "" if there are none.

    Args:
      pictures: {"title", "width", "height", "jpeg" (base64), "panels": [{"title", "boxes": [{"box":
        (left, top, right, bottom), "name", "score" (None for the truth), "class"}]}]}.
    """
    rows = "".join(_row(picture) for picture in pictures)
    if not rows:
        return ""
    note = "Boxes of the chosen members of the first seed; a number is the confidence in per cent."
    return f'<p class="note">{note}</p>{rows}'


def _row(picture: Mapping[str, Any]) -> str:
    panels = "".join(
        f"<figure>{_panel(picture, panel)}<figcaption>{_text(panel['title'])}</figcaption></figure>"
        for panel in picture["panels"]
    )
    return f'<p class="note">{_text(picture["title"])}</p><div class="figures small">{panels}</div>'


def _panel(picture: Mapping[str, Any], panel: Mapping[str, Any]) -> str:
    width, height = picture["width"], picture["height"]
    size = 9 * width / WIDTH  # of the letters, in pixels of the photograph
    boxes = "".join(_box(found, size) for found in panel["boxes"])
    return (
        f'<svg role="img" aria-label="{_text(panel["title"])}" width="{WIDTH}" '
        f'viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" '
        f'href="data:image/jpeg;base64,{_text(picture["jpeg"])}"/>{boxes}</svg>'
    )


def _box(found: Mapping[str, Any], size: float) -> str:
    left, top, right, bottom = (float(x) for x in found["box"])
    colour = _COLOURS[int(found["class"]) % len(_COLOURS)]
    score = "" if found["score"] is None else f" {100 * found['score']:.0f}"
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" fill="none" stroke="{colour}" stroke-width="{size / 5:.1f}"/>'
        f'<text x="{left:.1f}" y="{max(top, size):.1f}" font-size="{size:.1f}" fill="{colour}" '
        f'stroke="white" stroke-width="{size / 5:.1f}" paint-order="stroke">'
        f"{_text(found['name'] + score)}</text>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))
