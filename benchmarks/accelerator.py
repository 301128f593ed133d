"""Speed on a GPU or TPU: steps, utilisation, sweeps, bfloat16, ImageNet's size, SinKD's loss.

    python benchmarks/accelerator.py [--only=step sweep imagenet sinkhorn] [--repeats=20]

Uses the first accelerator that jax finds, with synthetic images in memory. On a CPU the script
prints a message and exits; --tiny runs it with small sizes, which only shows that it works. Model
FLOPs utilisation is the operations counted by the compiler / time / the device's peak below (dense,
bfloat16 with float32 sums, as vendors state it). A float32 step reaches only a fraction of it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
from timing import medians, stepping

from kdjax import losses
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

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


def peak() -> float | None:
    """Return the device's peak operations per second, or None if it is not in the table."""
    kind = jax.devices()[0].device_kind
    return next((1e12 * PEAKS[name] for name in PEAKS if kind.startswith(name)), None)


def config(
    pair: tuple[str, str], shape: tuple[int, ...], classes: int, batch: int, dtype: str
) -> dict[str, Any]:
    """Return BD-KD of two networks on synthetic images."""
    models = [{"name": name} for name in pair]
    balanced = {"toward": "teacher", "temperature": 2.0}
    return {
        "num_steps": 100_000,
        "batch_size": batch,
        "devices": 1,
        "precision": dtype,
        "data": {"name": "synthetic", "shape": shape, "num_classes": classes, "seed": 0},
        "roles": {
            "teacher": {
                "model": models[0],
                "terms": {"ce": {}, "forward_kl": {"toward": "student"}},
            },
            "student": {"model": models[1], "terms": {"ce": {}, "balanced_kl": balanced}},
        },
    }


def stepper(settings: dict[str, Any], members: int = 1) -> tuple[Callable[[], None], float]:
    """Return a call that takes one training step, and its operations as counted by the compiler."""
    run = build({**settings, "sweep": {"seed": list(range(members))}})
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(range(members))), {})
    placed, batches = program.layout.place(state), device_batches(run, program, 0)
    compiled = program.step.lower(placed, next(batches)).compile()
    analysis = compiled.cost_analysis() or {}
    return stepping(compiled, placed, batches), float(analysis.get("flops", 0.0))


def steps(rows: list[tuple[str, dict[str, Any]]], repeats: int) -> None:
    """Print one row for each configuration."""
    print("| co-training step | ms | images/s | GFLOP | utilisation |\n|---|---:|---:|---:|---:|")
    steppers = {name: (*stepper(settings), settings["batch_size"]) for name, settings in rows}
    times = medians({name: call for name, (call, _, _) in steppers.items()}, repeats)
    for name, (_, flops, batch) in steppers.items():
        top, seconds = peak(), times[name]
        share = f"{100 * flops / seconds / top:.1f} %" if top else "-"
        cells = f"{1e3 * seconds:.2f} | {batch / seconds:.0f} | {flops / 1e9:.1f} | {share}"
        print(f"| {name} | {cells} |", flush=True)
    print()


def step(tiny: bool, repeats: int) -> None:
    """Time steps at CIFAR's size in float32 and bfloat16."""
    pair, batch = (("resnet8", "resnet8"), 8) if tiny else (("resnet32x4", "resnet8x4"), 256)
    rows = [
        (f"{' with '.join(pair)}, {batch} x 32 x 32, {dtype}", (pair, (32, 32, 3), 100, batch))
        for dtype in ("float32", "bfloat16")
    ]
    steps(
        [(name, config(*settings, dtype=name.rpartition(" ")[2])) for name, settings in rows],
        repeats,
    )


def imagenet(tiny: bool, repeats: int) -> None:
    """Time ResNet-50 with ResNet-18 at 224 pixels."""
    batch, pixels = (2, 64) if tiny else (128, 224)
    pair = ("ResNet18", "ResNet18") if tiny else ("ResNet50", "ResNet18")
    steps(
        [
            (
                f"{' with '.join(pair)}, {batch} x {pixels} x {pixels}, {dtype}",
                config(pair, (pixels, pixels, 3), 1000, batch, dtype),
            )
            for dtype in ("float32", "bfloat16")
        ],
        repeats,
    )


def sweep(tiny: bool, repeats: int) -> None:
    """Print the time per member and step against the number of members."""
    counts = (1, 2) if tiny else (1, 2, 4, 8, 16, 32, 64)
    batch = 8 if tiny else 128
    print("| members | time per member-step / single |\n|---:|---:|")
    settings = config(("resnet8", "resnet8"), (32, 32, 3), 100, batch, "float32")
    single = None
    for count in counts:
        call, _ = stepper(settings, count)
        seconds = medians({"it": call}, repeats)["it"] / count
        single = single or seconds
        print(f"| {count} | {seconds / single:.3f} |", flush=True)
    print()


def sinkhorn(tiny: bool, repeats: int) -> None:
    """Time SinKD's loss with its gradient."""
    batch = 32 if tiny else 1024
    print("| Sinkhorn loss and gradient | ms |\n|---|---:|")
    for classes in (2, 100, 1000):
        keys = jax.random.split(jax.random.key(0))
        pair = [jax.random.normal(key, (batch, classes)) for key in keys]
        both = jax.jit(jax.value_and_grad(lambda s, t: losses.sinkhorn(s, t).cost.mean()))
        call = lambda both=both, pair=pair: jax.block_until_ready(both(*pair))  # noqa: E731
        seconds = medians({"it": call}, repeats)["it"]
        print(f"| B {batch}, C {classes} | {1e3 * seconds:.2f} |", flush=True)
    print()


PARTS = {"step": step, "sweep": sweep, "imagenet": imagenet, "sinkhorn": sinkhorn}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="small sizes, also on a CPU")
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.tiny:
        print("no accelerator: jax sees only the CPU; --tiny shows that the script works")
        return
    print(f"jax {jax.__version__} on {device.device_kind} ({device.platform})\n")
    for name in args.only:
        PARTS[name](args.tiny, args.repeats)


if __name__ == "__main__":
    main()
