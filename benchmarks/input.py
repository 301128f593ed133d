"""Throughput of the ImageNet input pipeline compared with the step, on generated JPEG files.

Images of ImageNet's usual size are written to a temporary folder. The input pipeline on the host
reads, decodes and resizes them to a canvas; the compiled step crops and flips them and trains.
Three calls are interleaved and timed by their medians:

    input   batches from the files to the device, without training
    step    the step on one batch that is already on the device
    both    as in training: the host prepares batches while the device computes

    share of time waiting for input = 1 - (images/s of both) / (images/s of step)

On a CPU the host and the device share the cores, so the share is the time that decoding takes from
the step. With an accelerator the share is 0 if enough workers decode.

    python benchmarks/input.py [--batch=16] [--workers=0] [--image-size=64] [--model=ResNet18]
        [--pictures=256] [--picture-size=500x375] [--steps=4] [--repeats=3] [--precision=float32]

With an accelerator: --batch=512 --image-size=224 --precision=bfloat16 --workers=16 --steps=30.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

BUFFERED = 8  # batches prepared ahead (see data/images/streaming.py)


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write JPEG files of two classes with as much detail as photographs."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
    for number in range(count):
        coarse = rng.integers(0, 256, (size[1] // 25, size[0] // 25, 3), dtype=np.uint8)
        blurred = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(blurred, np.int16) + rng.integers(-12, 13, (size[1], size[0], 3))
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / "ab"[number % 2] / f"{number}.jpg", quality=90)


def config(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the config of one network alone, as in experiments/imagenet_resnet.py."""
    return {
        "num_steps": 10_000,
        "batch_size": args.batch,
        "precision": args.precision,
        "data": {
            "name": "folder",
            "path": str(folder),
            "image_size": args.image_size,
            "augment": "resized_crop_flip",
            "validation": 2,
            "test": 2,
            "workers": args.workers,
        },
        "roles": {
            "student": {
                "model": {"name": args.model, "stem": "imagenet"},
                "terms": {"ce": {"label_smoothing": 0.1}},
            }
        },
    }


def seconds(call: Callable[[], Any], steps: int) -> float:
    """Time `steps` calls; wait for the device only at the end, as training does."""
    start = time.perf_counter()
    result = None
    for _ in range(steps):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / steps


def measure(settings: dict[str, Any], steps: int, repeats: int) -> dict[str, float]:
    """Return the median seconds for each batch of input, step and both."""
    run = build(settings)
    program, state = make_program(run, MemberGroup(run.variants[0], (0,)), {})
    holder = {"state": program.layout.place(state)}
    batches: Iterator[Any] = device_batches(run, program, 0)
    ready = next(batches)

    def step(batch: Any) -> Any:
        holder["state"], metrics = program.step(holder["state"], batch)
        return metrics

    jax.block_until_ready(step(ready))
    calls = {
        "input": lambda: jax.block_until_ready(next(batches)),
        "both": lambda: step(next(batches)),
        "step": lambda: step(ready),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        seconds(calls["input"], BUFFERED)  # use up the batches prepared during the other timings
        for name, call in calls.items():
            times[name].append(seconds(call, steps))
    return {name: statistics.median(samples) for name, samples in times.items()}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16, help="over all devices")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes; 0: threads")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--model", default="ResNet18", help="ResNet18, -34, -50 or -101")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--picture-size", default="500x375", help="width x height")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    args.pictures = max(args.pictures, args.batch + 4)
    return args


def main() -> None:
    """Print the shares, then the speeds."""
    args = arguments()
    width, height = map(int, args.picture_size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), args.pictures, (width, height))
        times = measure(config(Path(folder), args), args.steps, args.repeats)
    backend, count = jax.default_backend(), jax.device_count()
    workers = args.workers or "threads"
    print(
        f"{count} x {backend}, {args.model} at {args.image_size}, batch {args.batch}, {workers}\n"
    )
    print("| what | |\n|---|---:|")
    print(f"| share of time waiting for input | {max(0, 1 - times['step'] / times['both']):.0%} |")
    print(f"| input / step, in images/s | {times['step'] / times['input']:.2f} |")
    for name in ("input", "step", "both"):
        print(f"| {name}, images/s | {args.batch / times[name]:.0f} |")


if __name__ == "__main__":
    main()
