"""What a swept value does: means over seeds, for all values, not only the chosen one.

    python benchmarks/by_value.py experiments/results/cifar10_jpeg_compare/report.json.gz \
        --metric agreement student/accuracy --split test

Reads the report.json (or .gz) of any run and prints a Markdown table, a row for each variant and
combination of swept values. The remarks in docs/results.md are read off such tables.
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--metric", nargs="+", default=["student/accuracy", "student/ece"])
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    args = parser.parse_args()
    opened = gzip.open if args.report.suffix == ".gz" else open
    with opened(args.report, "rt") as file:
        variants = json.load(file)["variants"]
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
                found = [row[metric] for row in rows if row.get(metric) is not None]
                cells.append(f"{np.mean(found):.4f}" if found else "-")
            print(f"| {variant['name']} | {key} | {len(rows)} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
