"""Time from the command to the first step: `kdjax train` on digits, a new process each time.

    python benchmarks/start.py [--repeats=5] [--experiment=experiments/digits_bdkd.py]

The first run fills an empty compilation cache and is reported separately. A run writes its first
line of metrics after its first step, so this line gives an upper bound. Aim: < 10 s.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def first_line(experiment: str, workdir: Path, cache: Path) -> float:
    """Return the seconds until the run's first line of metrics, then end the run."""
    command = [sys.executable, "-m", "kdjax", "train", f"--config={experiment}"]
    command += [f"--workdir={workdir}", "--config.log_every=1"]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while run.poll() is None:
            lines = list(workdir.rglob("metrics.jsonl"))
            if any('"train' in path.read_text() for path in lines):
                break
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        if run.poll():
            sys.exit(f"{' '.join(command)} ended with status {run.returncode}")
        run.terminate()
    return seconds


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--experiment", default=str(ROOT / "experiments" / "digits_bdkd.py"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cold = first_line(args.experiment, root / "cold", root / "cache")
        warm = [
            first_line(args.experiment, root / f"warm{n}", root / "cache")
            for n in range(args.repeats)
        ]
    print(f"{Path(args.experiment).name}: {statistics.median(warm):.1f} s to the first step with a")
    print(f"warm compilation cache (median of {args.repeats}), {cold:.1f} s with an empty one")


if __name__ == "__main__":
    main()
