"""Figures of representation learning by dependency: probe accuracy against task difficulty.

There are three sweeps around 4 tiles, batches of 64 and an endless stream: the number of tiles
(hence the mutual information), the batch size, and the number of training pairs. Each point is a
run of experiments/omniglot_wdm.py. Missing runs are trained; then the figures, their numbers and a
table are written.

    python benchmarks/dependency_figures.py --data=omniglot_8alphabets.npz --sweeps=tiles
    python benchmarks/dependency_figures.py --digits --sweeps=tiles       # needs no file

Without --sweeps the script runs all three and a table of ablations of the penalty at 4 tiles
(named "ablations"): sides, place, lambda, kind of critic, metric. The learning rate is selected on
validation for every variant at every point. Runs are stored under --runs and resumed. Accuracies
are those of a linear probe on the first view's representation, averaged over the factors, on
held-out drawings of unseen writers; error bars are one standard deviation over seeds.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from kdjax import cli
from kdjax.report.figure_style import legend, styles, svg
from kdjax.report.records import read_report
from kdjax.report.statistics import chosen_members

METRIC = "encoder_x/probe_accuracy"
ENDLESS = 16000  # position of the endless stream on the axis of training pairs


class Sweep(NamedTuple):
    """Points of a figure: arguments of the experiment, in the order of the axis."""

    points: tuple[str, ...]
    axis: str


BASE = "tiles=4"
MIDDLE = {"tiles": 4, "batch": 64, "pool": None}
ORDER = ("cpc", "wpc_penalty", "wpc_spectral", "wpc_bjorck")
SWEEPS = {
    "tiles": Sweep(
        ("tiles=1", "tiles=2", BASE, "tiles=8"), "mutual information of the views, nats"
    ),
    "batch": Sweep((f"{BASE},batch=16", BASE, f"{BASE},batch=128"), "batch"),
    "pool": Sweep((f"{BASE},pool=1000", f"{BASE},pool=4000", BASE), "training pairs"),
}
DIGITS = {
    "tiles": Sweep(("tiles=1", BASE, "tiles=9"), "mutual information of the views, nats"),
    "batch": Sweep((f"{BASE},batch=16", BASE), "batch"),
    "pool": Sweep((f"{BASE},pool=1000", BASE), "training pairs"),
}


def folder(runs: Path, words: str) -> Path:
    """Return the workdir of a point."""
    return runs / words.replace(",", "_").replace("=", "_")


def train(words: str, runs: Path, data: str | None, steps: int) -> None:
    """Train a point, unless it is finished."""
    where = folder(runs, words)
    if (where / "report.json").exists():
        return
    experiment = f"{words},steps={steps}" + ("" if data else ",DIGITS")
    arguments = [
        "train",
        f"--config=experiments/omniglot_wdm.py:{experiment}",
        f"--workdir={where}",
    ]
    if data:
        arguments.append(f"--config.data.path={data}")
    if status := cli.main(arguments):
        sys.exit(status)


def read(runs: Path) -> list[dict[str, Any]]:
    """Read settings and the selected members' test scores of the finished runs in a folder.

    Runs with one setting form one point; each may have some of the variants.
    """
    points: dict[tuple, dict[str, Any]] = {}
    for where in sorted(path.parent for path in runs.glob("*/report.json")):
        report = read_report(where)
        data = report.config["data"]
        setting = {"tiles": data["tiles"], "batch": report.batch_size, "pool": data["pool"]}
        point = points.setdefault(tuple(setting.values()), {**setting, "variants": {}})
        point["steps"] = report.steps
        for variant in report.variants:
            rows = [member.results["test"] for member in chosen_members(variant, "encoder_x")]
            point["mutual_information"] = rows[0]["critic/mutual_information"]
            point["variants"][variant.name] = {
                "accuracy": [row[METRIC] for row in rows],
                "estimate": [row["critic/estimate"] for row in rows],
            }
    return list(points.values())


def points_of_sweep(sweep: str, points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the points of one sweep in the order of its axis; all else has the default values."""
    fixed = {key: value for key, value in MIDDLE.items() if key != sweep}
    selected = [p for p in points if all(p[key] == value for key, value in fixed.items())]
    return sorted(selected, key=lambda point: position(sweep, point))


def position(sweep: str, point: Mapping[str, Any]) -> float:
    """Return the position of a point on its axis."""
    if sweep == "tiles":
        return point["mutual_information"]
    return (point["pool"] or ENDLESS) if sweep == "pool" else point["batch"]


def names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all variants in the order of the experiment."""
    return [name for name in ORDER if any(name in point["variants"] for point in points)]


def figure(name: str, points: Sequence[Mapping[str, Any]], axis: str) -> str:
    """Draw mean and standard deviation of the accuracy, one line for each variant."""
    variants = names(points)

    def draw(canvas: Figure) -> None:
        axes = canvas.subplots()
        where = [position(name, point) for point in points]
        for variant, style in styles(variants).items():
            selected = [p for p in points if variant in p["variants"]]
            values = [100 * np.array(p["variants"][variant]["accuracy"]) for p in selected]
            means = [v.mean() for v in values]
            spread = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
            at = [position(name, p) for p in selected]
            axes.errorbar(at, means, spread, capsize=3, markersize=4, **style)
        if name != "tiles":
            axes.set_xscale("log", base=2)
            labels = ["endless" if x == ENDLESS and name == "pool" else f"{x:g}" for x in where]
            axes.set_xticks(where, labels)
        axes.set_xlabel(axis)
        axes.set_ylabel("probe accuracy %")
        axes.set_ylim(bottom=0)
        legend(canvas, variants, variants)

    return svg(draw, f"probe accuracy against {axis}")


def as_markdown(points: Sequence[Mapping[str, Any]], name: str, axis: str) -> list[str]:
    """Return a table with a row for each variant and a column for each point."""
    where = [position(name, point) for point in points]
    heads = ["endless" if x == ENDLESS and name == "pool" else f"{x:.4g}" for x in where]
    lines = [f"| probe accuracy %, by {axis} | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---:|" * len(heads))
    for variant in names(points):
        cells = []
        for point in points:
            if variant not in point["variants"]:
                cells.append("not run")
                continue
            values = 100 * np.array(point["variants"][variant]["accuracy"])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def ablations(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of all variants with a penalty at the default point."""
    (middle,) = [point for point in points if all(point[k] == v for k, v in MIDDLE.items())]
    rows = {n: v for n, v in middle["variants"].items() if n not in ORDER or n == "wpc_penalty"}
    lines = ["| ablation, 4 tiles | probe accuracy % | estimate, nats |", "|---|---:|---:|"]
    for name, results in rows.items():
        cells = []
        for values in (100 * np.array(results["accuracy"]), np.array(results["estimate"])):
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=1):.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Train the missing points, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="omniglot_8alphabets.npz, or tfds's folder")
    parser.add_argument("--digits", action="store_true", help="digits instead; needs no file")
    parser.add_argument("--runs", type=Path, default=Path("runs/omniglot"))
    parser.add_argument("--out", type=Path, help="default: experiments/results/omniglot_wdm")
    parser.add_argument("--sweeps", default=",".join([*SWEEPS, "ablations"]))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--draw", action="store_true", help="draw the finished runs, train nothing")
    args = parser.parse_args()
    if not (args.data or args.digits or args.draw):
        parser.error("give --data=FILE, --digits or --draw")
    sweeps = DIGITS if args.digits else SWEEPS
    out = args.out or (args.runs if args.digits else Path("experiments/results/omniglot_wdm"))
    out.mkdir(parents=True, exist_ok=True)
    numbers, text = {}, [f"`python {shlex.join(sys.argv)}`", ""]
    for name in args.sweeps.split(","):
        if name == "ablations":
            if not args.draw:
                train(f"{BASE},ablations", args.runs, args.data, args.steps)
            text += ablations(read(args.runs))
            continue
        for words in () if args.draw else sweeps[name].points:
            train(words, args.runs, args.data, args.steps)
        points = points_of_sweep(name, read(args.runs))
        if not points:
            continue
        numbers[name] = points
        (out / f"{name}.svg").write_text(figure(name, points, sweeps[name].axis) + "\n")
        text += as_markdown(points, name, sweeps[name].axis)
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (out / "results.md").write_text("\n".join(text))
    sys.stdout.write("\n".join(text) + f"\nfigures: {out}\n")


if __name__ == "__main__":
    main()
