"""Cost of each loss, forward and gradient, compared with plain PyTorch written from the formula.

    python benchmarks/losses.py [--repeats 15] [--threads 2] [--only correlation]

Prints a Markdown table for each size: medians in milliseconds of interleaved runs of the jitted
kdjax loss and of PyTorch (eager, no compiler), their ratio, and the relative difference of the two
values. The gradient is with respect to the student's outputs. PyTorch is in the extra `bench`;
without it only kdjax's column is filled. Logits and embeddings are [B, C], maps B x 8 x 8 x 64
(PyTorch: channels first); the contrastive loss has width 128, 10,000 rows and 1,024 negatives. The
last table is of batches of 64 with the maps of resnet32x4 and resnet8x4 (stem and stages of
32 x 32 x 64, 16 x 16 x 128 and 8 x 8 x 256; 100 classes), and of 4 x 32 tokens of 32,000 words.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from loss_cases import Case, cases, table_cases

try:
    import torch
except ImportError:
    torch = None

SIZES = ((256, 100), (128, 1000))


def kdjax_call(case: Case) -> Callable[[], float]:
    """Compile the mean of a loss with its gradient; the call waits and returns the value."""

    def mean(student: jax.Array, *rest: jax.Array) -> Any:
        out = case.jax_loss(student, *rest)
        value, after = out if isinstance(out, tuple) else (out, None)
        return jnp.mean(value), after

    arrays = jax.tree.map(jnp.asarray, (case.student, *case.rest))
    compiled = jax.jit(jax.value_and_grad(mean, has_aux=True)).lower(*arrays).compile()
    return lambda: float(jax.block_until_ready(compiled(*arrays))[0][0])


def torch_call(case: Case) -> Callable[[], float]:
    """Do the same in PyTorch."""

    def tensor(a: np.ndarray) -> Any:
        return torch.tensor(np.ascontiguousarray(np.moveaxis(a, -1, 1)) if a.ndim == 4 else a)

    student, *rest = jax.tree.map(tensor, (case.student, *case.rest))
    leaves = [student] if isinstance(student, torch.Tensor) else student
    for leaf in leaves:
        leaf.requires_grad_(True)

    def call() -> float:
        for leaf in leaves:
            leaf.grad = None
        value = case.torch_loss(student, *rest).mean()
        value.backward()
        return value.item()

    return call


def row(name: str, case: Case, repeats: int) -> str:
    """Time one loss in both libraries, interleaved."""
    calls = [kdjax_call(case)] + ([torch_call(case)] if torch else [])
    values = [call() for call in calls]  # warms up too
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, samples in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            samples.append(1e3 * (time.perf_counter() - start))
    jax_ms, *torch_ms = map(statistics.median, times)
    if not torch_ms:
        return f"| {name} | {jax_ms:.3f} | - | - | - |"
    gap = abs(values[0] - values[1]) / max(abs(values[1]), 1e-6)
    difference = f"{gap:.0e}" if case.compare else "random"
    ratio = torch_ms[0] / jax_ms
    return f"| {name} | {jax_ms:.3f} | {torch_ms[0]:.3f} | {ratio:.1f} | {difference} |"


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--only", default="", help="names of losses, separated by commas")
    args = parser.parse_args()
    if torch is None:
        print("PyTorch is not installed (pip install 'kdjax[bench]'): kdjax's column only.\n")
    else:
        print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__} on cpu")
        if args.threads:
            torch.set_num_threads(args.threads)
    tables = {f"B {batch}, C {classes}": cases(batch, classes) for batch, classes in SIZES} | {
        "B 64, maps of resnet32x4 and resnet8x4; 4 x 32 tokens": table_cases()
    }
    only = set(args.only.split(",")) - {""}
    known = {name for table in tables.values() for name in table}
    if unknown := only - known:
        parser.error(f"--only: no loss {', '.join(sorted(unknown))}; there are {sorted(known)}")
    for title, table in tables.items():
        print(f"\n{title}, forward + gradient:\n")
        print("| loss | kdjax, ms | PyTorch, ms | times faster | relative difference |")
        print("|---|---|---|---|---|", flush=True)
        for name, case in table.items():
            if not only or name in only:
                print(row(name, case, args.repeats), flush=True)


if __name__ == "__main__":
    main()
