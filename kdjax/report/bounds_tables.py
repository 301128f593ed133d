"""Bounds of a run as a table and a figure: each layer's bound, and the funnel layer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kdjax.errors import UserError
from kdjax.report.figure_style import styles, svg
from kdjax.report.table import Table

__all__ = ["bounds_figure", "bounds_table", "read_bounds", "write_bounds"]

Networks = Sequence[Mapping[str, Any]]
_NUMBERS = {  # key of a layer -> column
    "w1": "W1",
    "baseline": "W1, one law",
    "sliced": "sliced W1",
    "entropic": "entropic W1",
    "tail": "Lipschitz tail",
    "bound": "bound, nats",
}


def write_bounds(folder: Path, found: Mapping[str, Any]) -> list[Path]:
    """Write what `diagnose` found ("networks", "command") as bounds.json and bounds.svg.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table, figure = folder / "bounds.json", folder / "bounds.svg"
        table.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        figure.write_text(bounds_figure(found["networks"]) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out={folder}: cannot be written ({error.strerror})") from error
    return [table, figure]


def read_bounds(folder: Path) -> dict[str, Any] | None:
    """What `write_bounds` wrote into a folder, if it did.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / "bounds.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        bounds_table(found["networks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; `kdjax bounds` writes it again") from error
    return found


def bounds_table(networks: Networks) -> Table:
    """Tabulate a line a layer of each network."""
    rows, rules = [], set()
    for network in networks:
        rules.add(len(rows))
        for layer in network["layers"]:
            mark = " (funnel)" if layer["name"] == network["funnel"] else ""
            # files of before the entropic value lack it
            values = (layer[key] if key != "entropic" else layer.get(key) for key in _NUMBERS)
            rows.append(
                (
                    f"{network['variant']} {network['role']} #{network['member']}",
                    layer["name"] + mark,
                    *("-" if value is None else f"{value:.4g}" for value in values),
                    f"{network['gap']:.4g}",
                    "held" if network["held"] else "VIOLATED",
                )
            )
    kept = sum(bool(network["held"]) for network in networks)
    whole = f"all {kept}" if kept == len(networks) else f"{kept} of {len(networks)}"
    return Table(
        title="Wasserstein bounds by layer",
        header=("network", "layer", *_NUMBERS.values(), "loss gap, nats", "gap <= bound"),
        rows=tuple(rows),
        text_columns=2,
        notes=(
            f"Invariant, |mean test loss - mean training loss| <= bound at every layer: held for "
            f"{whole} networks.",
            "W1 of (representation, label) between training and test examples, exact; beside it "
            "its mean for shuffled examples, which the sample size alone explains, a lower value "
            "(sliced) and an upper one (entropic). Bound: sqrt(2) max(1, tail) W1; funnel: the "
            "layer with the smallest.",
        ),
        rules=frozenset(rules),
    )


def bounds_figure(networks: Networks) -> str:
    """Draw W1 and the bound of every layer as an SVG: a colour a variant, teachers dashed."""
    order = _order(networks)
    variants = list(dict.fromkeys(network["variant"] for network in networks))
    styles_of = styles({"variants": [{"name": name} for name in variants]})

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for network in networks:
            colour = styles_of[network["variant"]]["color"]
            dash = "--" if network["role"] == "teacher" else "-"
            label = f"{network['variant']} {network['role']}"
            where = [order.index(layer["name"]) for layer in network["layers"]]
            for axis, key in zip(axes, ("w1", "bound"), strict=True):
                values = [layer[key] for layer in network["layers"]]
                axis.plot(where, values, dash, marker="o", ms=3, color=colour, label=label)
            at = next(i for i, x in enumerate(network["layers"]) if x["name"] == network["funnel"])
            lowest = network["layers"][at]["bound"]
            axes[1].plot(where[at], lowest, "o", ms=9, mfc="none", color=colour)
        axes[0].set_title("W1 of (representation, label)")
        axes[1].set_title("bound, nats (ring: funnel layer)")
        for axis in axes:
            turned = {"rotation": 45, "ha": "right"} if len(order) > 6 else {}
            axis.set_xticks(range(len(order)), order, **turned)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_formatter(FuncFormatter(_sparse))
        if len(networks) <= 12:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4)

    return svg(draw, "bounds by layer", (9.0, 4.4))


def _order(networks: Networks) -> list[str]:
    """All layers from the input to the logits, as the deepest networks have them."""
    deepest = sorted(networks, key=lambda network: -len(network["layers"]))
    names = dict.fromkeys(layer["name"] for network in deepest for layer in network["layers"])
    ends = [name for name in ("input", "logits") if name in names]
    inner = [name for name in names if name not in ends]
    return [*ends[:1], *inner, *ends[1:]] if ends[:1] == ["input"] else [*inner, *ends]


def _sparse(value: float, _: int) -> str:
    """Label 2 and 5 of a decade only."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
