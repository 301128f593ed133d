"""Time that checkpoints take from the training loop, in a folder and in a bucket.

Trains two CNNs on random 32 x 32 images with a checkpoint every 100 steps, in a folder and in a
bucket of gcp-storage-emulator on the same machine, in turn. The server competes for the cores,
which a real bucket would not; a real bucket is further away. Aim: < 2 % of the loop.

    python benchmarks/bucket.py [--rounds=3] [--steps=400]
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
import shares

from kdjax import cli
from kdjax.train import loop

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "experiments" / "npz_bdkd.py"


def serve(port: int) -> subprocess.Popen:
    """Start a server with the bucket "bench", and wait until it answers."""
    command = [sys.executable, str(ROOT / "tests" / "faults" / "bucket.py"), str(port), "bench"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
            return server
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not answer")


def measure(workdir: str, data: str, steps: int) -> None:
    """Train in this process; print the seconds of the loop and of its checkpoints as JSON."""
    clock = shares.Clock()
    flags = [f"--config={EXPERIMENT}", f"--workdir={workdir}", f"--config.data.path={data}"]
    flags += [f"--config.num_steps={steps}", "--config.eval_every=100"]
    flags += ["--config.checkpoint_every=100", "--config.sweep.seed=(0,)"]
    with mock.patch.object(loop, "fit", shares.watch(clock)):
        if cli.main(["train", *flags]) or not clock.total:
            sys.exit("the run failed")
    print(json.dumps({"loop": clock.total, "steps": clock.steps, **clock.seconds}))


def run(workdir: str, data: Path, steps: int) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, f"--child={workdir}", f"--data={data}", f"--steps={steps}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child, args.data, args.steps)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    os.environ |= {"GCE_METADATA_ROOT": "127.0.0.1:9", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, serve(port) as server:
        data = Path(folder, "images.npz")
        sizes = {"train": 4000, "test": 1000}
        images = {
            f"x_{s}": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for s, n in sizes.items()
        }
        labels = {f"y_{s}": rng.integers(0, 10, n) for s, n in sizes.items()}
        np.savez(data, **images, **labels)
        rows: dict[str, list[dict[str, float]]] = {"folder": [], "bucket": []}
        for number in range(args.rounds):
            rows["folder"].append(run(f"{folder}/{number}", data, args.steps))
            rows["bucket"].append(run(f"gs://bench/{number}", data, args.steps))
        server.terminate()
    print("| workdir | ms a step | ms a checkpoint | share, a checkpoint every 100 steps |")
    print("|---|---:|---:|---:|")
    for name, runs in rows.items():
        step = statistics.median(1000 * r["loop"] / r["steps"] for r in runs)
        # the clock runs from the first validation on, after which all checkpoints are written
        save = statistics.median(1000 * r["checkpoints"] / (args.steps // 100) for r in runs)
        print(f"| {name} | {step:.1f} | {save:.0f} | {save / step:.2f} % |")


if __name__ == "__main__":
    main()
