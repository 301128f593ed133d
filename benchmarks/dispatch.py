"""Steps of one dispatch (`steps_per_dispatch`) on this machine: time of a step, and of compilation.

For a student of a frozen teacher (KD), with the batches and the program of `kdjax train`. Calls are
interleaved; in parentheses the seconds until the first dispatch is done, without a cache.

    python benchmarks/dispatch.py [--repeats=15] [--counts 1 8]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
from timing import medians

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

PAIRS = {
    "MLP 64-16-10, batch 64, 5 members": (
        {"name": "mlp", "hidden": (128, 128)}, {"name": "mlp", "hidden": (16,)}, (8, 8, 1), 64, 5,
    ),
    "MLP 784-256-256-10, batch 128": (
        {"name": "mlp", "hidden": (512, 512)}, {"name": "mlp", "hidden": (256, 256)}, (28, 28, 1),
        128, 1,
    ),
    "CNN of 3 layers, 28 x 28, batch 128": (
        {"name": "resnet8"}, {"name": "cnn", "widths": (8, 16, 32)}, (28, 28, 1), 128, 1,
    ),
    "ResNet-8, 32 x 32, batch 128": (
        {"name": "resnet20"}, {"name": "resnet8"}, (32, 32, 3), 128, 1,
    ),
}  # fmt: skip


def dispatching(arguments: tuple[Any, ...], count: int) -> tuple[Callable[[], None], float]:
    """Return a call of `count` steps, and the seconds until the first one is done."""
    teacher, student, shape, batch_size, members = arguments
    kd = {"ce": {}, "forward_kl": {"toward": "teacher", "temperature": 4.0}}
    start = time.perf_counter()
    run = build(
        {
            "num_steps": 100_000,
            "batch_size": batch_size,
            "devices": 1,
            "steps_per_dispatch": count,
            "data": {"name": "synthetic", "shape": shape, "num_classes": 10},
            "roles": {
                "teacher": {"model": teacher, "terms": {"ce": {}}},
                "student": {"model": student, "terms": kd},
            },
            "sweep": {"seed": list(range(members))},
        }
    )
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(range(members))), {})
    holder, batches = {"state": program.layout.place(state)}, device_batches(run, program, 0)

    def call() -> None:
        if program.multi_step is None:
            holder["state"], metrics = program.step(holder["state"], next(batches))
        else:
            dispatched = tuple(next(batches) for _ in range(count))
            holder["state"], metrics = program.multi_step(holder["state"], dispatched)
        jax.block_until_ready((holder["state"], metrics))

    call()
    return call, time.perf_counter() - start


def main() -> None:
    """Print the milliseconds of a step for each count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--counts", type=int, nargs="*", default=[1, 8])
    args = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}: ms a step")
    print(f"\n| networks | {' | '.join(map(str, args.counts))} |")
    print("|---|" + "---:|" * len(args.counts), flush=True)
    for name, arguments in PAIRS.items():
        calls = {count: dispatching(arguments, count) for count in args.counts}
        times = medians({str(count): call for count, (call, _) in calls.items()}, args.repeats)
        cells = [
            f"{1e3 * times[str(count)] / count:.2f} ({first:.1f})"
            for count, (_, first) in calls.items()
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
