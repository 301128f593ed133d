"""The style of a report's figures, and their conversion to small SVGs."""

import io
import re
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# The palette of Okabe and Ito ("Color Universal Design"), without its yellow, which is too faint
# for lines on white. From the eighth variant on the colours repeat with another dash.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")
_MARKERS = "osD^vPX"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text remains text: small and searchable
    "svg.hashsalt": "kdjax",
    "text.parse_math": False,  # names may contain dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
SIZE = (4.8, 3.5)  # inches of 72 units


def styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the colour, dash and marker of each variant (or curve), by its place in `names`."""
    return {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        for index, name in enumerate(names)
    }


def legend(figure: Figure, variants: Sequence[str], drawn: Container[str]) -> None:
    """Add a legend of the drawn variants below the axes, if there are several variants."""
    if len(variants) == 1:
        return
    drawn_styles = {name: style for name, style in styles(variants).items() if name in drawn}
    handles = [Line2D([], [], linewidth=2, **style) for style in drawn_styles.values()]
    # matplotlib omits labels that begin with an underscore, so a zero-width space precedes them.
    labels = [f"\u200b{name}" for name in drawn_styles]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=1.8)


def plain_label(value: float, position: int = 0) -> str:
    """Format a tick as a plain number: 0.01 and 20 instead of powers."""
    return f"{value:g}"


def sparse_label(value: float, position: int = 0) -> str:
    """Format a tick at 2 or 5 of a decade; other ticks have no label."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def svg(draw: Callable[[Figure], None], label: str, size: tuple[float, float] = SIZE) -> str:
    """Return a figure as an SVG for a page, without prolog, metadata and unused ids."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.\-]+)", text))
    text = re.sub(r' id="([\w.\-]+)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r' (d|x|y)="([^"]*)"', _round_numbers, text)
    name = re.sub(r"[<>&\"']", " ", label)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _round_numbers(attribute: re.Match[str]) -> str:
    """Shorten coordinates (not labels) to hundredths of a point."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0])
