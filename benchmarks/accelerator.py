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
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bare  # first: it lets kdjax be imported without its dependencies
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses, models
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.train.optimizer import make_optimizer
from kdjax.train.step import init_state, make_step, multi_step
from kdjax.train.sweep import init_members, vmap_members
from kdjax.types import Method, Variables

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


class Work(NamedTuple):
    """A pair of networks and its batch; `co_train`: both learn, else the teacher is frozen."""

    teacher: str
    student: str
    batch: int
    size: int  # pixels, or tokens
    classes: int
    co_train: bool = False
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Say all of it in one line."""
        kind = "co-trained" if self.co_train else "offline"
        return f"{self.teacher} -> {self.student}, {self.batch} x {self.size}, {kind}, {self.dtype}"

    @property
    def text(self) -> bool:
        """Return if the batch holds tokens."""
        return self.teacher.startswith("bert")


def works(tiny: bool) -> list[Work]:
    """List the pairs, those that matter most first."""
    if tiny:
        sizes = [Work("ResNet18", "ResNet18", 2, 32, 5), Work("resnet8", "resnet8", 4, 32, 5)]
        sizes.append(Work("bert-1", "bert-1", 4, 8, 3))
        return [*sizes, sizes[1]._replace(co_train=True, dtype="bfloat16")]
    imagenet = Work("ResNet50", "ResNet18", 128, 224, 1000)
    cifar = Work("resnet32x4", "resnet8x4", 64, 32, 100)
    bert = Work("bert-12", "bert-6", 32, 128, 2)
    low = {"dtype": "bfloat16"}
    return [
        imagenet._replace(**low), cifar, bert._replace(**low), cifar._replace(batch=1024, **low),
        imagenet._replace(co_train=True, **low), imagenet, bert, cifar._replace(co_train=True),
        cifar._replace(batch=1024), imagenet._replace(co_train=True),
    ]  # fmt: skip


def batch_of(work: Work) -> dict[str, np.ndarray]:
    """Return random pixels or token ids with random labels."""
    rng = np.random.default_rng(0)
    labels = {"label": rng.integers(0, work.classes, work.batch).astype(np.int32)}
    shape = (work.batch, work.size)
    if not work.text:
        return {"image": rng.normal(size=(*shape, work.size, 3)).astype(np.float32), **labels}
    ids = rng.integers(1, 1000, shape).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        **labels,
    }


def network(work: Work, name: str) -> Any:
    """Build one of a pair; "bert-6" has six layers of BERT-base."""
    options: dict[str, Any] = {"num_classes": work.classes, "dtype": work.dtype}
    if work.text:
        layers = int(name.partition("-")[2])
        small = {"width": 16, "num_heads": 2, "vocab_size": 1000} if layers == 1 else {}
        return models.build("bert", num_layers=layers, **small, **options)
    if name.startswith("ResNet"):
        options["stem"] = "imagenet"
    return models.build(name, **options)


def transport() -> terms.TermSpec:
    """Return SinKD's term with a constant epsilon: a traced one needs ott, for small values."""
    spec = terms.sinkhorn()

    def loss(student: Any, teachers: Any, batch: Any, scalars: Any) -> Any:
        return spec.loss_fn(student, teachers, batch, {**scalars, "epsilon": 0.1})

    return spec._replace(loss_fn=loss)


def method_of(work: Work, *, distil: bool = True) -> tuple[Method, dict, dict]:
    """Return the method, the optimizers and the scalars: KD, SinKD for text, or BD-KD."""

    def term(make: Callable, peer: str, **scalars: float) -> Any:
        return terms.make_term(make(), toward=[peer], scalars=scalars)

    ce = {"ce": terms.make_term(terms.cross_entropy())}
    student, teacher = dict(ce), {}
    if work.co_train:
        teacher = dict(ce)
        if distil:
            teacher["forward_kl"] = term(terms.forward_kl, "student")
            student["balanced_kl"] = term(terms.balanced_kl, "teacher", temperature=2.0)
    elif distil:
        student["forward_kl"] = term(terms.forward_kl, "teacher", temperature=4.0)
        if work.text:
            student["sinkhorn"] = term(transport, "teacher", weight=1e-3)
    players = {
        "teacher": Player(network(work, work.teacher), teacher),
        "student": Player(network(work, work.student), student),
    }
    optimizer = make_optimizer("adamw" if work.text else "sgd")
    hparams = {role: player_hparams(p, learning_rate=1e-3) for role, p in players.items()}
    return co_train(players), dict.fromkeys(players, optimizer), hparams


def repeated(step: Callable, state: Any, batch: Any) -> Callable[[], None]:
    """Return a call that takes one step from the state of the last one and waits."""
    holder = [state]

    def call() -> None:
        holder[0], metrics = step(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))

    return call


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call after two that are not counted."""
    times = []
    for turn in range(repeats + 2):
        start = time.perf_counter()
        call()
        if turn >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def compiled_step(work: Work, *, distil: bool = True) -> tuple[Callable, Any, Any]:
    """Compile one step; returns it with its state and its batch."""
    method, tx, hparams = method_of(work, distil=distil)
    batch = jax.device_put(batch_of(work))
    state = jax.jit(lambda key: init_state(method, tx, key, batch, hparams))(jax.random.key(0))
    step = jax.jit(make_step(method, tx), donate_argnums=0).lower(state, batch).compile()
    return step, state, batch


Row = dict[str, Any]
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
    took = seconds(repeated(step, state, batch), repeats)
    row = {"ms": 1e3 * took, "per_second": work.batch / took, "GFLOP": flops / 1e9, "MiB": size}
    if peak:
        row["utilisation"] = flops / took / peak
    del state
    return row | bare.torch_times(work, batch_of(work), repeats)


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
        took = seconds(repeated(jax.jit(mapped, donate_argnums=0), state, batch), repeats) / count
        single.append(took)
        return {"ms": 1e3 * took, "of_one": took / single[0]}

    for count in (1, 2) if tiny else (1, 4, 16, 64, 2, 8, 32):
        yield f"{count} members", lambda count=count: measure(count)


def sinkhorn(tiny: bool, repeats: int) -> Rows:
    """Time of SinKD's loss with its gradient, and of PyTorch's loop."""
    loss = jax.jit(jax.value_and_grad(lambda s, t: losses.sinkhorn(s, t).cost.sum()))

    def measure(batch: int) -> Row:
        s, t = (2 * np.random.default_rng(i).normal(size=(batch, 100)) for i in range(2))
        arrays = [jnp.asarray(z, jnp.float32) for z in (s, t)]
        took = seconds(lambda: jax.block_until_ready(loss(*arrays)), repeats)
        return {"ms": 1e3 * took} | bare.torch_sinkhorn(s, t, repeats)

    for batch in (8,) if tiny else (64, 256, 1024, 4096):
        yield f"B {batch}, C 100", lambda batch=batch: measure(batch)


def share(tiny: bool, repeats: int) -> Rows:
    """Time of a BD-KD step, and of the same step with cross-entropy alone."""
    work = cifar(tiny, co_train=True)

    def measure() -> Row:
        whole, without = (
            seconds(repeated(*compiled_step(work, distil=distil)), repeats)
            for distil in (True, False)
        )
        return {"ms": 1e3 * whole, "share_of_losses": 1 - without / whole}

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
        return {"ms": 1e3 * seconds(call, max(3, repeats // count)) / count}

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
