"""Where the time of a whole run goes: steps, input, logging, evaluation, checkpoints.

A run as `kdjax train` makes it, of any experiment, with its loop timed from within: what the host
spends in `next(batches)`, in writing lines, in validating and in saving, as shares of the loop
(compiling is left out: the first window of steps is not counted). The share of input is an upper
value of what the device waits, which computes meanwhile. Aims: input < 2 %, and logging,
evaluation and checkpoints together < 5 %.

    python benchmarks/shares.py experiments/digits_bdkd.py [flags of the experiment]
"""

import collections
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

from kdjax import cli
from kdjax.train import loop


class Clock:
    """Seconds by name, from the first call of `start` on."""

    def __init__(self) -> None:
        """Nothing is timed yet."""
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.running = False
        self.began = self.whole = 0.0
        self.steps = 0

    def start(self) -> None:
        """Count from now on."""
        if not self.running:
            self.running, self.began = True, time.perf_counter()

    def stop(self) -> None:
        """End of a loop."""
        if self.running:
            self.whole += time.perf_counter() - self.began
        self.running = False

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added to `name`."""

        def inner(*args: Any) -> Any:
            before = time.perf_counter()
            found = call(*args)
            if self.running:
                self.seconds[name] += time.perf_counter() - before
            return found

        return inner


def watch(clock: Clock) -> Callable[..., Any]:
    """`loop.fit`, timed."""
    fit = loop.fit

    def wrapped(hooks: loop.Hooks, state: Any, batches: Iterator[Any], **rest: Any) -> Any:
        def read(rows: Any) -> Any:
            found = hooks.read(rows)  # waits for the device
            if clock.running:
                clock.steps += len(rows)
            return found

        def evaluate(*args: Any) -> None:
            clock.timed("evaluation", hooks.evaluate)(*args)
            clock.start()  # everything has been compiled once

        timed = hooks._replace(
            read=read,
            tick=clock.timed("logging", hooks.tick),
            evaluate=evaluate,
            log=clock.timed("logging", hooks.log),
            save=clock.timed("checkpoints", hooks.save),
        )
        advance = clock.timed("input", batches.__next__)
        ready = iter(advance, None)
        try:
            return fit(timed, state, ready, **rest)
        finally:
            clock.stop()

    return wrapped


def main() -> None:
    """Print the shares."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "fit", watch(clock)):
        flags = [f"--config={sys.argv[1]}", f"--workdir={folder}/run", *sys.argv[2:]]
        status = cli.main(["train", *flags])
    if status or not clock.whole:
        sys.exit("the run failed, or was too short: it must validate at least twice")
    print(
        f"\njax {jax.__version__} on {jax.default_backend()}, {sys.argv[1]}, {clock.steps} steps\n"
    )
    print("| part | share of the loop |\n|---|---:|")
    rest = clock.whole - sum(clock.seconds.values())
    for name, seconds in {"steps": rest, **clock.seconds}.items():
        print(f"| {name} | {100 * seconds / clock.whole:.1f} % |")


if __name__ == "__main__":
    main()
