"""Two processes that train together on one machine.

As a script it is one of the processes: `several.py PORT INDEX [-- ARGV]...` runs each command. A
moment to die at may come first, as in `crashing.py`: `several.py PORT INDEX MOMENT N -- ARGV`.
"""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 600  # for all commands, on a busy machine


def start(commands, moments=((), ()), devices=1):
    """Start the two processes, of some devices each; they die at their `moments`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
    }
    flags = environment.get("XLA_FLAGS", "").split()
    environment["XLA_FLAGS"] = " ".join(f for f in flags if "device_count" not in f)
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    joined = [part for argv in commands for part in ("--", *argv)]
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(port), str(index), *map(str, moment), *joined],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index, moment in enumerate(moments)
    ]


def finish(processes, seconds=SECONDS):
    """Wait for both; return (status, stderr) of each."""
    try:
        stderr = [process.communicate(timeout=seconds)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, stderr, strict=True)]


def main(port, index, *rest):
    from kdjax import cli
    from kdjax.train import distributed
    from tests.faults import crashing

    cut = rest.index("--")
    if rest[:cut]:
        crashing.arm(rest[0], *map(int, rest[1:cut]))
    commands = [[]]
    for part in rest[cut + 1 :]:
        if part == "--":
            commands.append([])
        else:
            commands[-1].append(part)
    with distributed.processes_of(True, f"127.0.0.1:{port}", 2, int(index)):
        return max(cli.main(argv) for argv in commands)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
