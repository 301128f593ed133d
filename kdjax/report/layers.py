"""Bounds of a run as a table and a figure: each layer's bound, and the funnel layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from kdjax.report.render import Table
from kdjax.report.svg import svg

__all__ = ["bounds_figure", "bounds_table"]

Networks = Sequence[Mapping[str, Any]]


def bounds_table(networks: Networks) -> Table:
    """Tabulate a line a layer of each network."""
    rows, rules = [], set()
    for network in networks:
        rules.add(len(rows))
        for layer in network["layers"]:
            mark = " (funnel)" if layer["name"] == network["funnel"] else ""
            rows.append(
                (
                    f"{network['variant']} {network['role']} #{network['member']}",
                    layer["name"] + mark,
                    *(f"{layer[key]:.4g}" for key in ("w1", "baseline", "sliced", "tail", "bound")),
                    f"{network['gap']:.4g}",
                    "held" if network["held"] else "VIOLATED",
                )
            )
    return Table(
        title="Wasserstein bounds by layer",
        header=(
            "network",
            "layer",
            "W1",
            "W1, one law",
            "sliced W1",
            "Lipschitz tail",
            "bound, nats",
            "loss gap, nats",
            "gap <= bound",
        ),
        rows=tuple(rows),
        text_columns=2,
        notes=(
            "W1 of (representation, label) between training and test examples, exact; beside it "
            "its mean for shuffled examples, which the sample size alone explains, and a lower "
            "value. Bound: sqrt(2) max(1, tail) W1; funnel: the layer with the smallest.",
        ),
        rules=frozenset(rules),
    )


def bounds_figure(networks: Networks) -> str:
    """Draw the bound (and W1) of every layer, a line a network, as an SVG."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for network in networks:
            label = f"{network['variant']} {network['role']}"
            names = [layer["name"] for layer in network["layers"]]
            for axis, key in zip(axes, ("w1", "bound"), strict=True):
                values = [layer[key] for layer in network["layers"]]
                (line,) = axis.plot(names, values, marker="o", markersize=3, label=label)
                if key == "bound":
                    at = names.index(network["funnel"])
                    axis.plot(names[at], values[at], "o", ms=9, mfc="none", color=line.get_color())
        axes[0].set_title("W1 of (representation, label)")
        axes[1].set_title("bound, nats (ring: funnel layer)")
        for axis in axes:
            axis.set_yscale("log")
            axis.tick_params(axis="x", rotation=45)
        if len(networks) <= 12:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return svg(draw, "bounds by layer", (9.0, 4.2))
