"""Memory and time of a loss between language models whose logits are computed in chunks of tokens.

    python benchmarks/token_head.py [--loss forward_kl] [--chunks 128 256 512] [--repeats 7]
        [--batch 8] [--length 512] [--vocabulary 32000] [--student 256] [--teacher 512]

From hidden states and output matrices to the mean loss over tokens and its gradients in the
student's states and matrix, float32. The plain path computes all logits. Memory is the compiler's
peak of temporary arrays (`memory_analysis`), which PyTorch does not state. PyTorch (extra `bench`)
runs the plain path, and chunks whose gradients are computed at once; without it its rows are left
out. Times are medians of interleaved calls, relative to kdjax's plain path. The last column is the
largest relative difference of values and gradients from it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import medians

from kdjax import losses
from kdjax.distill.terms.token_head import Head, weighted_sum

try:
    import torch
    import torch_losses
except ImportError:
    torch = torch_losses = None

TORCH = {"forward_kl": "forward", "reverse_kl": "reverse", "jensen_shannon": "jensen_shannon"}


def arrays(args: argparse.Namespace) -> list[np.ndarray]:
    """Return states and matrix of the student, then of the teacher."""
    rng, tokens = np.random.default_rng(0), args.batch * args.length
    drawn = []
    for width in (args.student, args.teacher):
        drawn.append(rng.normal(size=(tokens, width)).astype("f4"))
        drawn.append(2 * rng.normal(size=(args.vocabulary, width)).astype("f4") / width**0.5)
    return drawn


def kdjax_loss(name: str, chunk: int) -> Callable[..., jax.Array]:
    """Return the mean loss over tokens; chunk 0 is the plain path."""
    loss = getattr(losses, name)

    def mean(states: Any, table: Any, teacher_states: Any, teacher_table: Any) -> jax.Array:
        student, teacher = Head(states, table), Head(teacher_states, teacher_table)
        if not chunk:
            detached = jax.lax.stop_gradient(teacher.logits())
            return jnp.mean(loss(student.logits(), detached, temperature=4.0))
        weights = jnp.full(len(states), 1 / len(states))
        return weighted_sum(loss, student, teacher, weights, {"temperature": 4.0}, chunk)

    return mean


def torch_call(name: str, chunk: int, inputs: list[np.ndarray]) -> Callable[[], Any]:
    """Return a call for value and gradients in PyTorch; chunk 0 is the plain path."""
    loss = getattr(torch_losses, TORCH[name])
    states, table, teacher_states, teacher_table = map(torch.tensor, inputs)
    size = chunk or len(states)

    def call() -> Any:
        leaves = table.detach().requires_grad_(True), []
        total = 0.0
        for start in range(0, len(states), size):
            part = states[start : start + size].detach().requires_grad_(True)
            with torch.no_grad():
                teacher = teacher_states[start : start + size] @ teacher_table.T
            value = loss(part @ leaves[0].T, teacher).sum() / len(states)
            value.backward()
            total += value.item()
            leaves[1].append(part.grad)
        return total, (torch.cat(leaves[1]).numpy(), leaves[0].grad.numpy())

    return call


def difference(one: Any, other: Any) -> float:
    """Return the largest difference of values and gradients, relative to the largest entry."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="forward_kl")
    parser.add_argument("--chunks", type=int, nargs="+", default=[128, 256, 512])
    sizes = {"repeats": 7, "batch": 8, "length": 512, "vocabulary": 32000}
    for name, size in {**sizes, "student": 256, "teacher": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    inputs, calls, memory, values = arrays(args), {}, {}, {}
    on_device = list(map(jnp.asarray, inputs))
    for chunk in (0, *args.chunks):
        function = jax.jit(jax.value_and_grad(kdjax_loss(args.loss, chunk), argnums=(0, 1)))
        compiled = function.lower(*on_device).compile()
        name = f"kdjax, {chunk or 'all'} tokens"
        calls[name] = lambda c=compiled: jax.block_until_ready(c(*on_device))
        memory[name] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        values[name] = jax.device_get(calls[name]())
    if torch is not None and args.loss in TORCH:
        for chunk in (0, args.chunks[-1]):
            name = f"PyTorch, {chunk or 'all'} tokens"
            calls[name] = torch_call(args.loss, chunk, inputs)
            values[name] = calls[name]()
    times = medians(calls, args.repeats, warm=1)
    first = next(iter(calls))
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {args.loss}, {vars(args)}\n")
    print("| path | temporary memory, MiB | plain / this | time / plain | difference |")
    print("|---|---:|---:|---:|---:|")
    for name in calls:
        stated = "- | -"
        if name in memory:
            stated = f"{memory[name]:.0f} | {memory[first] / memory[name]:.1f}"
        print(
            f"| {name} | {stated} | "
            f"{times[name] / times[first]:.2f} | {difference(values[name], values[first]):.1e} |"
        )


if __name__ == "__main__":
    main()
