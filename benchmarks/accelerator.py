"""What a GPU or a TPU makes of kdjax: speed, utilisation, sweeps, bfloat16, ImageNet's size, SinKD.

    python benchmarks/accelerator.py [--only=step sweep imagenet sinkhorn] [--repeats=20]

Runs unchanged wherever jax finds an accelerator, on its first device, with images made up in
memory; on a CPU it says so and ends, unless --tiny asks for small sizes (which only shows that the
script works). Model FLOPs utilisation is the compiled step's own count of operations / time / the
peak below of the device, dense and in bfloat16 with float32 sums, as vendors state it; a float32
step may reach a fraction of it only.
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
    """Operations per second that the device promises, None if it is not in the table."""
    kind = jax.devices()[0].device_kind
    return next((1e12 * PEAKS[name] for name in PEAKS if kind.startswith(name)), None)


def config(
    pair: tuple[str, str], shape: tuple[int, ...], classes: int, batch: int, dtype: str
) -> dict[str, Any]:
    """BD-KD of two networks on images made up in memory."""
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


def stepper(said: dict[str, Any], members: int = 1) -> tuple[Callable[[], None], float]:
    """A step that goes on from its own state, and its operations by the compiler's count."""
    run = build({**said, "sweep": {"seed": list(range(members))}})
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(range(members))), {})
    placed, batches = program.layout.place(state), device_batches(run, program, 0)
    compiled = program.step.lower(placed, next(batches)).compile()
    analysis = compiled.cost_analysis() or {}
    return stepping(compiled, placed, batches), float(analysis.get("flops", 0.0))


def steps(rows: list[tuple[str, dict[str, Any]]], repeats: int) -> None:
    """One row a configuration."""
    print("| co-training step | ms | images/s | GFLOP | utilisation |\n|---|---:|---:|---:|---:|")
    made = {name: (*stepper(said), said["batch_size"]) for name, said in rows}
    found = medians({name: call for name, (call, _, _) in made.items()}, repeats)
    for name, (_, flops, batch) in made.items():
        top, seconds = peak(), found[name]
        share = f"{100 * flops / seconds / top:.1f} %" if top else "-"
        cells = f"{1e3 * seconds:.2f} | {batch / seconds:.0f} | {flops / 1e9:.1f} | {share}"
        print(f"| {name} | {cells} |", flush=True)
    print()


def step(tiny: bool, repeats: int) -> None:
    """CIFAR's size, float32 and bfloat16."""
    pair, batch = (("resnet8", "resnet8"), 8) if tiny else (("resnet32x4", "resnet8x4"), 256)
    rows = [
        (f"{' with '.join(pair)}, {batch} x 32 x 32, {dtype}", (pair, (32, 32, 3), 100, batch))
        for dtype in ("float32", "bfloat16")
    ]
    steps(
        [(name, config(*said, dtype=name.rpartition(" ")[2])) for name, said in rows],
        repeats,
    )


def imagenet(tiny: bool, repeats: int) -> None:
    """ResNet-50 with ResNet-18 at 224 pixels."""
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
    """Time per member and step against the number of members: where a sweep stops paying."""
    counts = (1, 2) if tiny else (1, 2, 4, 8, 16, 32, 64)
    batch = 8 if tiny else 128
    print("| members | time per member-step / single |\n|---:|---:|")
    said = config(("resnet8", "resnet8"), (32, 32, 3), 100, batch, "float32")
    single = None
    for count in counts:
        call, _ = stepper(said, count)
        seconds = medians({"it": call}, repeats)["it"] / count
        single = single or seconds
        print(f"| {count} | {seconds / single:.3f} |", flush=True)
    print()


def sinkhorn(tiny: bool, repeats: int) -> None:
    """SinKD's loss with its gradient."""
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
