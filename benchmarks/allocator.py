"""Speed-up of the CPU step when freed memory is kept between steps (`kdjax.train.malloc`).

Processes with and without it alternate. Each measures the median time of a training step of each
network (alone, cross-entropy); the script prints the ratios of the medians.

    python benchmarks/allocator.py [--rounds=5] [--repeats=10]
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys

from sweep import NETWORKS, stepper
from timing import medians  # importing it makes glibc keep memory


def child(repeats: int) -> None:
    """Time the steps in this process."""
    calls = {name: stepper(*network, 1)[0] for name, network in NETWORKS.items()}
    print(json.dumps(medians(calls, repeats)))


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.repeats)
    rounds_ms = {which: collections.defaultdict(list) for which in ("left", "kept")}
    for _ in range(args.rounds):
        for which, times in rounds_ms.items():
            # with any such variable keep_memory does nothing; 8 is glibc's default
            tuned = {"MALLOC_ARENA_TEST": "8"} if which == "left" else {}
            command = [sys.executable, __file__, "--child", f"--repeats={args.repeats}"]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, **tuned}
            )
            for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                times[name].append(seconds)
    print("| network | step with memory given back / kept |\n|---|---:|")
    for name, left in rounds_ms["left"].items():
        ratio = statistics.median(left) / statistics.median(rounds_ms["kept"][name])
        print(f"| {name} | {ratio:.2f} |")
    return None


if __name__ == "__main__":
    main()
