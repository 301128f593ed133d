"""Cost of Wasserstein predictive coding compared with CPC, and memory of a score matrix.

    WPC step with the penalty at interpolates / CPC step, same networks, same critic    aim <= 3
    matrix products with a [batch, batch] result in a separable critic's scores         aim 1
    memory of scores, forward and backward, for batch 256, 512, 1024     grows as batch^2

The penalty is computed in the features (its gradient reaches only the critic) and in both images
(a second derivative through both networks). All steps are interleaved; ratios are of medians.

    python benchmarks/dependency.py [--repeats=15] [--batch=64]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses, models
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

WIDTH = 64
STEPS = {
    "cpc": {"objective": "cpc", "metric": "inputs", "bound": "none"},
    "wpc, penalty in features": {"objective": "wpc", "metric": "features", "bound": "sphere"},
    "wpc, penalty in images": {"objective": "wpc", "metric": "inputs", "bound": "none"},
}


def config(critic: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return the config of two MLPs on images of 28 x 28 pixels with a bilinear critic."""

    def encoder(entry: str) -> dict[str, Any]:
        model = {"name": "mlp", "hidden": (128,), "embedding": WIDTH}
        return {"model": model, "input": entry, "terms": {}}

    layers = {"own_layer": "embedding", "peer_layer": "embedding"}
    model = {"name": "dependency", "kind": "bilinear", "width": WIDTH, **layers, **critic}
    return {
        "num_steps": 1000,
        "batch_size": batch,
        "devices": 1,
        "data": {"name": "pairs_synthetic", "tiles": 2, "tile_size": 28},
        "roles": {
            "encoder_x": encoder("image"),
            "encoder_y": encoder("view"),
            "critic": {
                "between": ("encoder_x", "encoder_y"),
                "moves": "both",
                "model": model,
                "terms": {"dependency": {}},
            },
        },
        "select": {"role": "encoder_x", "metric": "probe_accuracy"},
    }


def stepper(settings: dict[str, Any]) -> Callable[[], None]:
    """Return a call that takes one training step on a fixed batch."""
    run = build(settings)
    program, state = make_program(run, MemberGroup(run.variants[0], (0,)), {})
    batch = next(device_batches(run, program, 0))
    states = [program.layout.place(state)]

    def step() -> None:
        states[0], _ = program.step(states[0], batch)
        jax.block_until_ready(states[0].params)

    step()
    return step


def products(kind: str, batch: int) -> int:
    """Count the matrix products of the scores with a [batch, batch(, ...)] result."""
    critic, variables, x = parts(kind, batch)
    scores = lambda v, a, b: critic.scores(v, a, b, train=False)[0]  # noqa: E731
    jaxpr = jax.make_jaxpr(scores)(variables, x, x)
    return sum(
        eqn.primitive.name == "dot_general" and eqn.outvars[0].aval.shape[:2] == (batch, batch)  # type: ignore[attr-defined]
        for eqn in jaxpr.eqns
    )


def memory(kind: str, batch: int) -> float:
    """Return the megabytes of temporaries of the objective's value and gradient."""
    critic, variables, x = parts(kind, batch)

    def loss(params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        scores, _ = critic.scores(variables._replace(params=params), a, b, train=False)
        return -losses.predictive_coding(scores)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(variables.params, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def parts(kind: str, batch: int) -> tuple[Any, Any, jax.Array]:
    """Return a critic, its variables, and features."""
    critic = models.pair_critic.build(kind, width=WIDTH)
    x = jnp.ones((batch, WIDTH))
    return critic, critic.init(jax.random.key(0), x, x), x


def main() -> None:
    """Print the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    steps = {name: stepper(config(critic, args.batch)) for name, critic in STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(5):
                step()
            seconds[name].append((time.perf_counter() - start) / 5)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"{name:26} {1e3 * value:8.2f} ms" for name, value in medians.items()]
    for name in list(STEPS)[1:]:
        ratio = medians[name] / medians["cpc"]
        lines.append(f"{name} / cpc: {ratio:.2f}")
    for kind in ("bilinear", "bilinear_bjorck", "concat"):
        sizes = {batch: memory(kind, batch) for batch in (256, 512, 1024)}
        row = ", ".join(f"{batch}: {size:.1f} MB" for batch, size in sizes.items())
        lines.append(f"{kind}: {products(kind, 1024)} products of [1024, 1024]; {row}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
