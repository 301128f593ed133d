"""Cost of the published Sinkhorn loss, forward and gradient, compared with PyTorch and ott.

    python benchmarks/sinkhorn.py [--repeats 15] [--threads 2] [--only 64x100,256x1000]

Prints a Markdown table: medians in milliseconds of interleaved runs at batch B and classes C of

- kdjax: `losses.sinkhorn` with traced temperature and epsilon, as in a training step;
- PyTorch: the loop written from the formula (eager, no compiler), its cost by `cdist`, which is
  several times faster at large sizes than broadcasting;
- ott: its log-space solver with the same 20 iterations, unrolled, on a cost by broadcasting.

The table also has kdjax's speed-up over each, and the relative difference to PyTorch's value. The
gradient is that of the sum over the batch with respect to the student's logits. PyTorch is in the
extra `bench`; without it its columns are empty.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import geometry
from ott.solvers import linear

from kdjax import losses

try:
    import torch
    import torch_losses as plain
except ImportError:
    torch = plain = None

SIZES = tuple((batch, classes) for batch in (16, 64, 256) for classes in (2, 100, 1000))
TEMPERATURE, EPSILON, ITERATIONS = 2.0, 0.1, 20  # published values


def with_kdjax(s: jax.Array, t: jax.Array, temperature: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return the sum of kdjax's costs."""
    return jnp.sum(losses.sinkhorn(s, t, temperature=temperature, epsilon=epsilon).cost)


def with_ott(s: jax.Array, t: jax.Array, temperature: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Compute the same loss with ott."""
    x, y = (jax.nn.softmax(z / temperature) for z in (s, t))
    cost = jnp.sum(jnp.abs(x[:, None] - y), axis=-1)
    out = linear.solve(
        geometry.Geometry(cost.T, epsilon=epsilon),
        a=jnp.ones(len(y)),
        b=jnp.ones(len(x)),
        min_iterations=ITERATIONS,
        max_iterations=ITERATIONS,
        threshold=-1.0,
        implicit_diff=None,
        use_danskin=False,
    )
    return jnp.sum(out.matrix.T * cost)


def jax_call(function: Callable[..., jax.Array], s: np.ndarray, t: np.ndarray) -> Callable:
    """Compile with its gradient; the call waits and returns the value."""
    arguments = [jnp.asarray(a) for a in (s, t)] + [jnp.float32(a) for a in (TEMPERATURE, EPSILON)]
    run = jax.jit(jax.value_and_grad(function))
    return lambda: float(jax.block_until_ready(run(*arguments))[0])


def torch_call(s: np.ndarray, t: np.ndarray) -> Callable:
    """Do the same in PyTorch."""
    student, teacher = torch.tensor(s, requires_grad=True), torch.tensor(t)

    def call() -> float:
        student.grad = None
        value = plain.sinkhorn(student, teacher)
        value.backward()
        return value.item()

    return call


def row(batch: int, classes: int, repeats: int) -> str:
    """Time one size in all libraries, interleaved."""
    rng = np.random.default_rng(0)
    s, t = (2 * rng.normal(size=(batch, classes)).astype(np.float32) for _ in range(2))
    calls = {"kdjax": jax_call(with_kdjax, s, t), "ott": jax_call(with_ott, s, t)}
    if torch is not None:
        calls["torch"] = torch_call(s, t)
    values = {name: call() for name, call in calls.items()}  # warms up too
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    times_ms = {name: statistics.median(samples) for name, samples in times.items()}
    line = f"| {batch} | {classes} | {times_ms['kdjax']:.2f} |"
    for name in ("torch", "ott"):
        if name not in times_ms:
            line += " - | - |"
            continue
        line += f" {times_ms[name]:.2f} | {times_ms[name] / times_ms['kdjax']:.1f} |"
    if torch is None:
        return f"{line} - |"
    return f"{line} {abs(values['kdjax'] / values['torch'] - 1):.0e} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--only", default="", help="sizes as 64x100, separated by commas")
    args = parser.parse_args()
    if torch is None:
        print("PyTorch is not installed (pip install 'kdjax[bench]'): its columns are empty.\n")
    else:
        print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__} on cpu")
        if args.threads:
            torch.set_num_threads(args.threads)
    sizes = set(args.only.split(",")) - {""}
    if unknown := sizes - {f"{b}x{c}" for b, c in SIZES}:
        parser.error(f"--only: no size {', '.join(sorted(unknown))}")
    print("\n| B | C | kdjax, ms | PyTorch, ms | times faster | ott, ms | times faster | apart |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for batch, classes in SIZES:
        if not sizes or f"{batch}x{classes}" in sizes:
            print(row(batch, classes, args.repeats), flush=True)


if __name__ == "__main__":
    main()
