"""Cost of each loss, forward and gradient, compared with plain PyTorch written from the formula.

    python benchmarks/losses.py [--repeats 15] [--threads 2] [--only correlation]

Prints a Markdown table for each size: medians in milliseconds of interleaved runs of the jitted
kdjax loss and of PyTorch (eager, no compiler), their ratio, and the relative difference of the two
values. The gradient is with respect to the student's outputs. PyTorch is in the extra `bench`;
without it only kdjax's column is filled. Logits are [B, C], embeddings [B, C], maps B x 8 x 8 x 64
(PyTorch: channels first); the contrastive loss has width 128, 10,000 rows and 1,024 negatives.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses

try:
    import torch
    import torch_losses as plain
except ImportError:
    torch = plain = None

SIZES = ((256, 100), (128, 1000))
ROWS, WIDTH, NEGATIVES = 10_000, 128, 1024


class Case(NamedTuple):
    """One loss in kdjax and PyTorch, as functions of the student's array and the rest."""

    jax_loss: Callable[..., jax.Array]
    torch_loss: Callable[..., Any] | None
    student: np.ndarray
    rest: tuple[np.ndarray, ...]
    maps: bool = False  # channels last for kdjax, channels first for PyTorch
    compare: bool = True  # False if each draws its own random numbers


def contrast_case(rng: np.random.Generator, batch: int) -> Case:
    """Return CRD's case; the memory is an argument in both libraries."""
    labels = rng.integers(0, 100, ROWS)
    memory = losses.contrast_init(jax.random.key(0), labels, width=WIDTH)

    def jax_loss(s: Any, t: Any, own: Any, other: Any, ids: Any) -> Any:
        bank = memory._replace(student=own, teacher=other)
        value, after = losses.contrast_loss(
            s, t, ids, bank, jax.random.key(1), num_negatives=NEGATIVES
        )
        return value, (after.student, after.teacher)

    s, t = (rng.normal(size=(batch, WIDTH)).astype(np.float32) for _ in range(2))
    ids = rng.permutation(ROWS)[:batch].astype(np.int64)
    rest = (t, np.array(memory.student), np.array(memory.teacher), ids)

    def torch_loss(*arrays: Any) -> Any:
        return plain.contrast(*arrays, NEGATIVES)

    return Case(jax_loss, torch_loss, s, rest, compare=False)


def cases(batch: int, classes: int) -> dict[str, Case]:
    """Return every loss at one size."""
    rng = np.random.default_rng(0)
    s, t, means = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((batch, classes), (batch, classes), (classes, classes))
    )
    y = rng.integers(0, classes, batch)
    shape = (batch, 8, 8, 64)
    maps = rng.normal(size=shape).astype(np.float32), (rng.normal(size=shape).astype(np.float32),)

    def warm(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda s, t: function(s, t, temperature=4.0)

    def stacked(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda s, t, y: function(s, jnp.stack([s, t]), y)

    table = {
        "cross_entropy": (losses.cross_entropy, "cross_entropy", s, (y,)),
        "entropy": (losses.entropy, "entropy", s, ()),
        "forward_kl": (warm(losses.forward_kl), "forward", s, (t,)),
        "reverse_kl": (warm(losses.reverse_kl), "reverse", s, (t,)),
        "jensen_shannon": (warm(losses.jensen_shannon), "jensen_shannon", s, (t,)),
        "total_variation": (warm(losses.total_variation), "total_variation", s, (t,)),
        "weighted_kl": (warm(losses.weighted_kl), "symmetric", s, (t,)),
        "balanced_kl": (warm(losses.balanced_kl), "balanced", s, (t,)),
        "minimum_logit_kl": (stacked(losses.minimum_logit_kl), "minimum_logit", s, (t, y)),
        "least_cross_entropy_kl": (
            stacked(losses.least_cross_entropy_kl), "least_cross_entropy", s, (t, y)
        ),
        "decoupled_kl": (losses.decoupled_kl, "decoupled", s, (t, y)),
        "correlation": (losses.correlation, "correlation", s, (t,)),
        "norm_direction": (losses.norm_direction, "norm_direction", s, (t, means, y)),
        "class_mean_cosine": (losses.class_mean_cosine, "class_mean_cosine", s, (means, y)),
        "stepwise_norm": (losses.stepwise_norm, "stepwise_norm", s, ()),
        "feature_mse": (losses.feature_mse, "mse", *maps),
        "attention_transfer": (losses.attention_transfer, "attention", *maps),
        "hierarchical_context": (losses.hierarchical_context, "hierarchical", *maps),
        "similarity_preserving": (losses.similarity_preserving, "similarity", *maps),
        "relational_distance": (losses.relational_distance, "distance", s, (t,)),
        "relational_angle": (losses.relational_angle, "angle", s, (t,)),
        "probabilistic_knowledge_transfer": (
            losses.probabilistic_knowledge_transfer, "neighbours", s, (t,)
        ),
    }  # fmt: skip
    table_cases = {
        name: Case(
            jax_loss, getattr(plain, torch_loss, None), student, rest, maps=student is maps[0]
        )
        for name, (jax_loss, torch_loss, student, rest) in table.items()
    }
    return table_cases | {"contrast_loss": contrast_case(rng, batch)}


def kdjax_call(case: Case) -> Callable[[], float]:
    """Compile the mean of a loss with its gradient; the call waits and returns the value."""

    def mean(student: jax.Array, *rest: jax.Array) -> Any:
        out = case.jax_loss(student, *rest)
        value, after = out if isinstance(out, tuple) else (out, None)
        return jnp.mean(value), after

    arrays = [jnp.asarray(a) for a in (case.student, *case.rest)]
    compiled = jax.jit(jax.value_and_grad(mean, has_aux=True)).lower(*arrays).compile()
    return lambda: float(jax.block_until_ready(compiled(*arrays))[0][0])


def torch_call(case: Case) -> Callable[[], float]:
    """Do the same in PyTorch."""
    student, *rest = (
        torch.tensor(np.ascontiguousarray(np.moveaxis(a, -1, 1)) if case.maps else a)
        for a in (case.student, *case.rest)
    )
    student.requires_grad_(True)

    def call() -> float:
        student.grad = None
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
    only = set(args.only.split(",")) - {""}
    for batch, classes in SIZES:
        table = cases(batch, classes)
        if unknown := only - set(table):
            parser.error(f"--only: no loss {', '.join(sorted(unknown))}; there are {list(table)}")
        print(f"\nB {batch}, C {classes}, forward + gradient:\n")
        print("| loss | kdjax, ms | PyTorch, ms | times faster | relative difference |")
        print("|---|---|---|---|---|", flush=True)
        for name, case in table.items():
            if not only or name in only:
                print(row(name, case, args.repeats), flush=True)


if __name__ == "__main__":
    main()
