"""Cost of the distances and constants of a bound, compared with alternative implementations.

    python benchmarks/bounds.py [--repeats 5] [--workdir RUN]

Prints a Markdown table of medians in seconds of interleaved calls, and the ratio to kdjax's, of

- exact W1 of 1,000 and 1,000 points of width 64; alternatives: the same linear programme at 100
  points (at 1,000 it takes minutes), and Sinkhorn by ott, converged at .02 of the largest cost;
- the entropic upper value of 8 layers, 500 + 500 examples, in one compiled call; alternatives: one
  call for each layer, and log space;
- the sliced value of 8 layers in one call; alternative: one call for each layer;
- the norm of a 3x3 convolution, 64 channels at 32x32, by frequency; alternative: power iteration.

With --workdir it also times `kdjax bounds` on all networks of a finished run.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from timing import medians

from kdjax import bounds
from kdjax.models.certificates import layers

LAYERS, EXAMPLES, SLICES = 8, 500, 64


def programme(cost: np.ndarray) -> float:
    """Solve the linear programme of two uniform samples with scipy."""
    n = len(cost)
    rows, columns = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    times = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.full(2 * n, 1 / n))
    return times.fun


def exact(rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Return exact transport at 1,000 points, and its alternatives."""
    x, y = rng.normal(size=(2, 1000, 64))
    small = cdist(x[:100], y[:100])
    largest = cdist(x, y).max()
    return {
        "exact W1, n = 1,000, width 64": lambda: bounds.wasserstein_exact(x, y),
        "linear programme, n = 100": lambda: programme(small),
        "ott's Sinkhorn, n = 1,000": lambda: bounds.wasserstein_entropic(
            x, y, epsilon=0.02 * largest
        ),
    }


def entropic(rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Return the entropic value of several layers, and its alternatives."""
    points = rng.normal(size=(LAYERS, 2, EXAMPLES, 32))
    costs = np.stack([cdist(*pair) for pair in points])
    epsilon = 0.02 * costs.max((1, 2))

    def loop() -> None:
        for cost, strength in zip(costs, epsilon, strict=True):
            bounds.transport_entropic(cost, epsilon=strength, log_domain=False, max_iterations=500)

    return {
        "entropic W1, 8 layers, one call": lambda: bounds.transport_entropic(
            costs, epsilon=epsilon, log_domain=False, max_iterations=500
        ),
        "a call a layer": loop,
        "one call, logarithms": lambda: bounds.transport_entropic(
            costs, epsilon=epsilon, max_iterations=500
        ),
    }


def sliced(rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Return the sliced value of several layers, and its alternatives."""
    first, second = rng.normal(size=(2, LAYERS, SLICES, EXAMPLES))
    lifted = jnp.asarray(first), jnp.asarray(second)
    compiled = jax.jit(bounds.wasserstein_1d)
    return {
        "sliced W1, 8 layers, one call": lambda: bounds.wasserstein_1d(first, second),
        "a call a layer": lambda: [
            bounds.wasserstein_1d(*pair) for pair in zip(first, second, strict=True)
        ],
        "one call, jitted, float32": lambda: jax.block_until_ready(compiled(*lifted)),
    }


def norms(rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Return the norm of a wide convolution, and its alternatives."""
    kernel = rng.normal(size=(3, 3, 64, 64)) / 24
    weights, shape = kernel.astype(np.float32), (32, 32, 64)
    function = lambda x: layers.convolve(x[None], weights, 1)[0]  # noqa: E731
    return {
        "norm of a convolution, by frequency": lambda: bounds.convolution_bound(kernel, (32, 32)),
        "power iteration, 300 steps": lambda: jax.block_until_ready(
            bounds.operator_norm(
                function, jnp.zeros(shape), key=jax.random.key(0), num_iterations=300
            )
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time the distances and constants of a bound.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workdir", help="a finished run, as of experiments/digits_compare.py")
    args = parser.parse_args()
    print("| computation | seconds | ratio |")
    print("|---|---:|---:|")
    for make in (exact, entropic, sliced, norms):
        times = medians(make(np.random.default_rng(0)), args.repeats)
        baseline = next(iter(times.values()))
        for name, seconds in times.items():
            print(f"| {name} | {seconds:.3f} | {seconds / baseline:.1f} |", flush=True)
    if args.workdir:
        command = [sys.executable, "-m", "kdjax", "bounds", f"--workdir={args.workdir}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"| `kdjax bounds`, {args.workdir} | {time.perf_counter() - start:.1f} | |")


if __name__ == "__main__":
    main()
