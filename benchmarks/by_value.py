"""Means over seeds for every swept value of a run, not only for the selected one.

    python benchmarks/by_value.py experiments/results/cifar10_jpeg_compare/report.json.gz \
        --metric agreement student/accuracy --split test

Reads the report.json (or .gz) of any run and prints a Markdown table, a row for each variant and
combination of swept values. The remarks in docs/results.md are based on such tables.
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("report", type=lambda text: Path(text).expanduser())
    parser.add_argument("--metric", nargs="+", default=["student/accuracy", "student/ece"])
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    args = parser.parse_args()
    opened = gzip.open if args.report.suffix == ".gz" else open
    with opened(args.report, "rt") as file:
        variants = json.load(file)["variants"]
    rows = [member["results"][args.split] for v in variants for member in v["members"]]
    known = sorted({name for row in rows for name in row})
    for metric in args.metric:
        if metric not in known:
            parser.error(f"--metric {metric}: not in {args.split}; there are {', '.join(known)}")
    print("| variant | values | seeds |", " | ".join(args.metric), "|")
    print("|---|---|---:|" + "---:|" * len(args.metric))
    for variant in variants:
        groups: dict[str, list[dict]] = {}
        for member in variant["members"]:
            values = {k.split(".")[-1]: v for k, v in member["values"].items() if k != "seed"}
            key = ", ".join(f"{name} {value:g}" for name, value in values.items())
            groups.setdefault(key, []).append(member["results"][args.split])
        for key, rows in groups.items():
            cells = []
            for metric in args.metric:
                numbers = [row[metric] for row in rows if row.get(metric) is not None]
                cells.append(f"{np.mean(numbers):.4f}" if numbers else "-")
            print(f"| {variant['name']} | {key} | {len(rows)} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
