"""A table and a figure of a run's bounds: the bound of each layer, and the funnel layer."""

import json
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kdjax.report.figure_style import plain_label, sparse_label, styles, svg
from kdjax.report.files import Path
from kdjax.report.records import write_text
from kdjax.report.results import BoundsSummary, NetworkBounds, to_json
from kdjax.report.table import Table

Networks = Sequence[NetworkBounds]
_NUMBERS = {  # field of a layer -> column
    "w1": "W1",
    "baseline": "W1, one law",
    "sliced": "sliced W1",
    "entropic": "entropic W1",
    "tail": "Lipschitz tail",
    "bound": "bound, nats",
}


def write_bounds(folder: Path, bounds: BoundsSummary) -> list[Path]:
    """Write bounds.json and bounds.svg into a folder; return their paths."""
    return [
        write_text(folder / "bounds.json", json.dumps(to_json(bounds), indent=1) + "\n"),
        write_text(folder / "bounds.svg", bounds_figure(bounds.networks) + "\n"),
    ]


def bounds_table(networks: Networks) -> Table:
    """Tabulate one line for each layer of each network."""
    rows, rules = [], set()
    for network in networks:
        rules.add(len(rows))
        for layer in network.layers:
            mark = " (funnel)" if layer.name == network.funnel else ""
            values = [getattr(layer, name) for name in _NUMBERS]
            rows.append(
                (
                    f"{network.variant} {network.role} #{network.member}",
                    layer.name + mark,
                    *("-" if value is None else f"{value:.4g}" for value in values),
                    f"{network.gap:.4g}",
                    "held" if network.held else "VIOLATED",
                )
            )
    held = sum(network.held for network in networks)
    count = f"all {held}" if held == len(networks) else f"{held} of {len(networks)}"
    return Table(
        title="Wasserstein bounds by layer",
        header=("network", "layer", *_NUMBERS.values(), "loss gap, nats", "gap <= bound"),
        rows=tuple(rows),
        text_columns=2,
        notes=(
            f"Invariant, |mean test loss - mean training loss| <= bound at every layer: held for "
            f"{count} networks.",
            "W1 of (representation, label) between training and test examples is exact. W1, one "
            "law: its mean for shuffled examples, the effect of the sample size alone; sliced: a "
            "lower value; entropic: an upper value. Bound: sqrt(2) max(1, tail) W1; funnel: the "
            "layer with the smallest bound.",
        ),
        rules=frozenset(rules),
    )


def bounds_figure(networks: Networks) -> str:
    """Draw W1 and the bound of every layer: one colour per variant, teachers dashed."""
    order = _order(networks)
    variant_styles = styles(dict.fromkeys(network.variant for network in networks))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for network in networks:
            colour = variant_styles[network.variant]["color"]
            dash = "--" if network.role == "teacher" else "-"
            label = f"{network.variant} {network.role}"
            places = [order.index(layer.name) for layer in network.layers]
            for axis, name in zip(axes, ("w1", "bound"), strict=True):
                values = [getattr(layer, name) for layer in network.layers]
                axis.plot(places, values, dash, marker="o", ms=3, color=colour, label=label)
            funnel = next(layer for layer in network.layers if layer.name == network.funnel)
            at = order.index(funnel.name)
            axes[1].plot(at, funnel.bound, "o", ms=9, mfc="none", color=colour)
        axes[0].set_title("W1 of (representation, label)")
        axes[1].set_title("bound, nats (ring: funnel layer)")
        for axis in axes:
            rotated = {"rotation": 45, "ha": "right"} if len(order) > 6 else {}
            axis.set_xticks(range(len(order)), order, **rotated)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(plain_label))
            axis.yaxis.set_minor_formatter(FuncFormatter(sparse_label))
        if len(networks) <= 12:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4)

    return svg(draw, "bounds by layer", (9.0, 4.4))


def _order(networks: Networks) -> list[str]:
    """Return all layers from the input to the logits, in the order of the deepest networks."""
    deepest = sorted(networks, key=lambda network: -len(network.layers))
    names = dict.fromkeys(layer.name for network in deepest for layer in network.layers)
    ends = [name for name in ("input", "logits") if name in names]
    inner = [name for name in names if name not in ends]
    return [*ends[:1], *inner, *ends[1:]] if ends[:1] == ["input"] else [*inner, *ends]
