"""Cost of a member of a sweep compared with a single run.

Steps: for K members of an MLP, a small CNN and a ResNet-8 (alone, cross-entropy, seeds 0..K-1, each
with its own batches), the time of one step of all members divided by K times the time of a single
run's step, interleaved, without compilation; stacked, and with `members_in_turn`. Aim: never above
1; at most .75 for the MLP. In parentheses: seconds until the first step is done, with compilation.

Commands (with --commands): `kdjax train` on digits with a sweep of N seeds compared with N commands
of one seed each, from start to report, with a warm compilation cache. Aim: at most .25.

    python benchmarks/sweep.py [--repeats=15] [--members 2 4 8 16] [--commands=16]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from timing import medians, stepping

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

NETWORKS = {
    "MLP 784-256-256-10, batch 64": ({"name": "mlp", "hidden": (256, 256)}, (28, 28, 1), 64),
    "CNN of 3 layers, 28 x 28, batch 64": ({"name": "cnn"}, (28, 28, 1), 64),
    "ResNet-8, 32 x 32, batch 128": ({"name": "resnet8"}, (32, 32, 3), 128),
}
# before jax 0.12 XLA computes loops on a CPU by one thread
LOOPS_ARE_FAST = jax.__version_info__ >= (0, 12) or jax.default_backend() != "cpu"
EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "digits_bdkd.py"


def stepper(
    model: dict[str, Any], shape: tuple[int, ...], batch: int, members: int, in_turn: bool = False
) -> tuple[Callable, float]:
    """Return a call that takes one step of all members, and the seconds until the first is done."""
    start = time.perf_counter()
    run = build(
        {
            "num_steps": 100_000,
            "batch_size": batch,
            "devices": 1,
            "data": {"name": "synthetic", "shape": shape, "num_classes": 10},
            "roles": {"student": {"model": model, "terms": {"ce": {}}}},
            "sweep": {"seed": list(range(members))},
            "members_in_turn": in_turn,
        }
    )
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(range(members))), {})
    call = stepping(program.step, program.layout.place(state), device_batches(run, program, 0))
    call()
    return call, time.perf_counter() - start


def steps(members: list[int], repeats: int) -> None:
    """Print the time for each member and step / the time of a single run's step."""
    print(f"| network | {' | '.join(f'K = {k}' for k in members)} |")
    print("|---|" + "---:|" * len(members), flush=True)
    for name, arguments in NETWORKS.items():
        single, _ = stepper(*arguments, 1)
        ways = {"": False, ", in turn": True} if LOOPS_ARE_FAST else {"": False}
        for label, in_turn in ways.items():
            cells = []
            for k in members:
                call, first = stepper(*arguments, k, in_turn)
                times = medians({"one": single, "all": call}, repeats)
                cells.append(f"{times['all'] / (k * times['one']):.2f} ({first:.1f})")
            print(f"| {name}{label} | {' | '.join(cells)} |", flush=True)


def commands(count: int, rounds: int) -> None:
    """Print the wall time of one command with a sweep / that of one command for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}

        def train(workdir: str, seeds: list[int]) -> float:
            start = time.perf_counter()
            command = [sys.executable, "-m", "kdjax", "train", f"--config={EXPERIMENT}"]
            command += [f"--workdir={Path(folder) / workdir}", f"--config.sweep.seed={seeds}"]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, **cache})
            return time.perf_counter() - start

        train("warm_sweep", list(range(count)))
        train("warm_single", [0])
        sweeps, singles = [], []
        for turn in range(rounds):
            sweeps.append(train(f"sweep{turn}", list(range(count))))
            singles.append(sum(train(f"single{turn}_{n}", [n]) for n in range(count)))
    ratio = statistics.median(sweeps) / statistics.median(singles)
    print(f"\none command with {count} seeds / {count} commands, {EXPERIMENT.name}: {ratio:.2f}")


def main() -> None:
    """Print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--members", type=int, nargs="*", default=[2, 4, 8, 16])
    parser.add_argument("--commands", type=int, default=0, help="how many single commands")
    parser.add_argument("--rounds", type=int, default=1, help="of all those commands")
    args = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}\n")
    if args.members:
        steps(args.members, args.repeats)
    if args.commands:
        commands(args.commands, args.rounds)


if __name__ == "__main__":
    main()
