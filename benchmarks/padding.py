"""Share of padding in a text task's training batches, by the way of batching.

    python benchmarks/padding.py --path=glue --tokenizer=FOLDER [--task=glue/mrpc] [--batch=32]

One length: all batches are padded to the longest text. Lengths: a batch is padded to the smallest
of four lengths that holds it, in random order, and sorted by length within windows of 16 batches
(the default). Packed: texts are put end to end into rows of the longest length, first fit; no
network here reads such rows for classification, so it is the bound that lengths are compared with.
"""

import argparse
from typing import Any

import numpy as np

from kdjax.experiment.build.build import build

WAYS = {
    "one length": {"lengths": ()},
    "four lengths, random order": {"window": 1},
    "four lengths, sorted windows": {},
}


def batches(args: argparse.Namespace, options: dict[str, Any]) -> list[np.ndarray]:
    """Return the attention masks of one epoch."""
    data = {"name": "text", "task": args.task, "path": args.path, "tokenizer": args.tokenizer}
    model = {"name": "bert", "num_layers": 1, "width": 8, "num_heads": 1}
    experiment = build(
        {
            "batch_size": args.batch,
            "devices": 1,
            "data": {**data, "validation": 0.1, "max_length": args.length, **options},
            "roles": {"student": {"model": model, "terms": {"ce": {}}}},
        }
    )
    stream = experiment.source.train(0, 0)
    epoch = experiment.source.size["train"] // args.batch
    return [np.asarray(next(stream)["attention_mask"]) for _ in range(epoch)]


def packed(lengths: list[int], longest: int) -> int:
    """Return the number of rows of `longest` tokens that hold all texts, first fit descending."""
    free: list[int] = []
    for size in sorted(lengths, reverse=True):
        row = next((i for i, left in enumerate(free) if left >= size), None)
        if row is None:
            free.append(longest - size)
        else:
            free[row] -= size
    return len(free)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--path", required=True, help="folder of the task's files")
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    print(f"{args.task}, batches of {args.batch}, at most {args.length} tokens\n")
    print("| batches | padding, % of the tokens | tokens / those of one length |\n|---|---:|---:|")
    sizes: list[int] = []
    for name, options in WAYS.items():
        masks = batches(args, options)
        total, real = sum(mask.size for mask in masks), sum(int(mask.sum()) for mask in masks)
        sizes = sizes or [int(size) for mask in masks for size in mask.sum(1)]
        longest = args.length * len(sizes)
        print(f"| {name} | {100 * (1 - real / total):.1f} | {total / longest:.2f} |")
    tokens = args.length * packed(sizes, args.length)
    share = 100 * (1 - sum(sizes) / tokens)
    print(f"| packed | {share:.1f} | {tokens / longest:.2f} |")


if __name__ == "__main__":
    main()
