"""Images of 32 x 32 pixels a second and core from WebDataset's .tar shards.

Shards of made-up PNG (or JPEG) pictures are written to a temporary folder. Three rates are
measured in the CPU time of this process, interleaved, and printed as medians:

    streamed    batches through grain: read, decode, order, stack (data.on_device=False)
    Pillow      decoding of the same pictures alone
    memory      batches of a set that was decoded once (up to 1 GiB), gathered in a compiled step

    nice python benchmarks/webdataset.py [--count=20000] [--batch=256] [--format=PNG] [--repeats=5]
"""

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from kdjax import data
from kdjax.types import Source


def write_shard(file: Path, count: int, form: str, seed: int) -> list[bytes]:
    """Write pictures with labels, and return their contents."""
    rng, pictures = np.random.default_rng(seed), []
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32, 1)
    with tarfile.open(file, "w") as shard:
        for number in range(count):
            noisy = ramp * rng.uniform(0.3, 1, 3) + rng.normal(0, 20, (32, 32, 3))
            content = io.BytesIO()
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(content, form)
            pictures.append(content.getvalue())
            for suffix, member in ((form.lower(), pictures[-1]), ("cls", b"%d" % (number % 10))):
                header = tarfile.TarInfo(f"{number:06d}.{suffix}")
                header.size = len(member)
                shard.addfile(header, io.BytesIO(member))
    return pictures


def load(folder: Path, batch: int, *, on_device: bool) -> Source:
    """Open the shards as a source."""
    batching = data.BatchOptions(batch_size=batch, on_device=on_device)
    options = data.ImageOptions(path=str(folder))
    return data.load("webdataset", options, batching, data.SplitOptions())


def rate(run: Callable[[], int]) -> float:
    """Return images a second of CPU time of this process, over its threads."""
    start = time.process_time()
    return run() / (time.process_time() - start)


def main() -> None:
    """Print the three rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--format", default="PNG")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_shard(Path(folder, "train-0.tar"), args.count, args.format, 0)
        write_shard(Path(folder, "test-0.tar"), 100, args.format, 1)
        streamed, memory = (load(Path(folder), args.batch, on_device=on) for on in (False, True))
        batches, ids = streamed.train(0, 0), memory.train(0, 0)
        arrays = jax.device_put(memory.arrays)
        gather = jax.jit(data.lookup)

        def stream() -> int:
            return sum(len(next(batches)["label"]) for _ in range(20))

        def decode() -> int:
            for picture in pictures[:5000]:
                np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            return len(pictures[:5000])

        def from_memory() -> int:
            for _ in range(200):
                jax.block_until_ready(gather(arrays, next(ids)))
            return 200 * args.batch

        cases = {"streamed": stream, "Pillow": decode, "memory": from_memory}
        rates = {name: [] for name in cases}
        for repeat in range(args.repeats + 1):
            for name, run in cases.items():
                value = rate(run)
                if repeat:  # the first round compiles
                    rates[name].append(value)
    for name, values in rates.items():
        print(f"{name:9} {statistics.median(values):9,.0f} images a second and core")


if __name__ == "__main__":
    main()
