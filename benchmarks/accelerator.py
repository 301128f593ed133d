"""Speed on one accelerator: steps, utilisation, memory, sweeps, SinKD's loss, beside PyTorch.

    python benchmarks/accelerator.py [--only pairs sweep sinkhorn share dispatch] [--json FILE]

One command of at most `--minutes` (8): what does not fit is named at the end. It needs jax, flax
and kdjax's folder only: not kdjax's other dependencies, no data, no network. Where PyTorch is
installed the same steps run in it, eager and by torch.compile. Prints one table and one line of
JSON.

On a CPU the script prints a message and exits; --tiny runs it with small sizes, which only shows
that it works. Utilisation is the operations that XLA counts / time / the device's peak below
(dense, bfloat16 with float32 sums, as vendors state it); a float32 step reaches a fraction of it.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bare  # first: it lets kdjax be imported without its dependencies
import jax
import jax.numpy as jnp
import numpy as np
from pairs import Work, batch_of, method_of, works
from timing import medians, stepping

from kdjax import losses
from kdjax.train.step import init_state, make_step, multi_step
from kdjax.train.sweep import init_members, vmap_members
from kdjax.types import Variables

# teraflops, bfloat16, without sparsity; from the vendors' data sheets
PEAKS = {
    "NVIDIA H100": 989.4,
    "NVIDIA H200": 989.4,
    "NVIDIA A100": 312.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}
MIB = 1 << 20
Row = dict[str, Any]


def repeated(step: Callable, state: Any, batch: Any) -> Callable[[], None]:
    """Return a call that takes one step, always on the same batch."""
    return stepping(step, state, itertools.repeat(batch))


def milliseconds(repeats: int, **calls: Callable[[], Any]) -> Row:
    """Return the median times of interleaved calls by their names."""
    return {name: 1e3 * took for name, took in medians(calls, repeats).items()}


def compiled_step(work: Work, *, distil: bool = True) -> tuple[Callable, Any, Any]:
    """Compile one step; returns it with its state and its batch."""
    method, tx, hparams = method_of(work, distil=distil)
    batch = jax.device_put(batch_of(work))
    state = jax.jit(lambda key: init_state(method, tx, key, batch, hparams))(jax.random.key(0))
    step = jax.jit(make_step(method, tx), donate_argnums=0).lower(state, batch).compile()
    return step, state, batch


Rows = Iterator[tuple[str, Callable[[], Row]]]  # names, and functions that measure


def pairs(tiny: bool, repeats: int) -> Rows:
    """Time, utilisation and memory of a step of each pair, and PyTorch's time."""
    for work in works(tiny):
        yield work.name, lambda work=work: pair(work, repeats)


def pair(work: Work, repeats: int) -> Row:
    """Measure one pair."""
    kind = jax.devices()[0].device_kind
    peak = next((1e12 * PEAKS[name] for name in PEAKS if kind.startswith(name)), None)
    step, state, batch = compiled_step(work)
    flops = float((step.cost_analysis() or {}).get("flops", 0.0))
    memory = step.memory_analysis()
    size = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / MIB
    beside = bare.torch_calls(work, batch_of(work))
    row = milliseconds(repeats, ms=repeated(step, state, batch), **beside)
    took = row["ms"] / 1e3
    row |= {"per_second": work.batch / took, "GFLOP": flops / 1e9, "MiB": size}
    return row | {"utilisation": flops / took / peak} if peak else row


def cifar(tiny: bool, *, co_train: bool = False) -> Work:
    """Return the pair of the parts below."""
    if tiny:
        return Work("resnet8", "resnet8", 4, 32, 100, co_train)
    return Work("resnet32x4", "resnet8x4", 64, 32, 100, co_train)


def sweep(tiny: bool, repeats: int) -> Rows:
    """Time of a step of K members / (K x a step of one)."""
    work = cifar(tiny)
    method, tx, hparams = method_of(work)
    batch = jax.device_put(batch_of(work))
    frozen: Variables = jax.jit(method.init)(jax.random.key(0), batch)["teacher"]
    single = []

    def measure(count: int) -> Row:
        state, axes = init_members(
            method, tx, range(count), batch, [hparams] * count, {"teacher": (frozen, False)}
        )
        state = jax.tree.map(jnp.copy, state)  # the step donates it, and all share the teacher
        mapped = vmap_members(make_step(method, tx), axes, stacked_batch=False, state_out=True)
        call = repeated(jax.jit(mapped, donate_argnums=0), state, batch)
        single.append(milliseconds(repeats, ms=call)["ms"] / count)
        return {"ms": single[-1], "of_one": single[-1] / single[0]}

    for count in (1, 2) if tiny else (1, 4, 16, 64, 2, 8, 32):
        yield f"{count} members", lambda count=count: measure(count)


def sinkhorn(tiny: bool, repeats: int) -> Rows:
    """Time of SinKD's loss with its gradient, and of PyTorch's loop."""
    loss = jax.jit(jax.value_and_grad(lambda s, t: losses.sinkhorn(s, t).cost.sum()))

    def measure(batch: int) -> Row:
        s, t = (2 * np.random.default_rng(i).normal(size=(batch, 100)) for i in range(2))
        arrays = [jnp.asarray(z, jnp.float32) for z in (s, t)]
        call = lambda: jax.block_until_ready(loss(*arrays))  # noqa: E731
        return milliseconds(repeats, ms=call, **bare.torch_sinkhorn(s, t))

    for batch in (8,) if tiny else (64, 256, 1024, 4096):
        yield f"B {batch}, C 100", lambda batch=batch: measure(batch)


def share(tiny: bool, repeats: int) -> Rows:
    """Time of a BD-KD step, and of the same step with cross-entropy alone."""
    work = cifar(tiny, co_train=True)

    def measure() -> Row:
        calls = {
            name: repeated(*compiled_step(work, distil=distil))
            for name, distil in (("ms", True), ("without_ms", False))
        }
        row = milliseconds(repeats, **calls)
        return {**row, "share_of_losses": 1 - row["without_ms"] / row["ms"]}

    yield f"BD-KD, {work.name}", measure


def dispatch(tiny: bool, repeats: int) -> Rows:
    """Time of a step where several are one program."""
    work = cifar(tiny)
    method, tx, hparams = method_of(work)
    batch = jax.device_put(batch_of(work))

    def measure(count: int) -> Row:
        state = init_state(method, tx, jax.random.key(0), batch, hparams)
        steps = jax.jit(multi_step(make_step(method, tx)), donate_argnums=0)
        call = repeated(steps, state, (batch,) * count)
        return {"ms": milliseconds(max(3, repeats // count), ms=call)["ms"] / count}

    for count in (1, 2) if tiny else (1, 8, 32):
        yield f"steps_per_dispatch {count}", lambda count=count: measure(count)


PARTS = {p.__name__: p for p in (pairs, sweep, sinkhorn, share, dispatch)}


def rows(names: list[str], tiny: bool, repeats: int, until: float) -> Iterator[Row]:
    """Yield the rows of all parts; one that fails or for which there is no time is named."""
    for part in names:
        for name, measure in PARTS[part](tiny, repeats):
            label = {"part": part, "name": name}
            if time.monotonic() > until:
                yield {**label, "not_run": "no time left"}
                continue
            try:
                yield {**label, **measure()}
            except Exception as error:  # noqa: BLE001 - out of memory, a compiler that fails
                yield {**label, "not_run": f"{type(error).__name__}: {error}"[:200]}


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small sizes, also on a CPU")
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.tiny:
        print("no accelerator: jax sees only the CPU; --tiny shows that the script works")
        return
    until = time.monotonic() + 60 * args.minutes - 45  # the last row takes less
    result = {"device": device.device_kind, "jax": jax.__version__, "torch": bare.torch_version()}
    print(f"{result}\n\n| part | | ms | more |\n|---|---|---:|---|", flush=True)
    listed = []
    for row in rows(args.only, args.tiny, args.repeats, until):
        listed.append(row)
        part, name, *more = row.items()
        cells = [f"{key} {x:.4g}" if isinstance(x, float) else f"{key}: {x}" for key, x in more]
        print(
            f"| {part[1]} | {name[1]} | {cells[0].removeprefix('ms ')} | {', '.join(cells[1:])} |"
        )
    line = json.dumps({**result, "rows": listed})
    print(f"\n{line}")
    if args.json:
        args.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
