"""Where the time of a whole run goes: steps, input, logging, evaluation, checkpoints.

A run as `kdjax train` makes it, of any experiment, with its loop timed from within: what the host
spends in `next(batches)`, in writing lines, in validating and in saving, as shares of the loop
(compiling is left out: all before the first validation is not counted). The host gets the next
batch while the device computes, so what the device waits for it is measured by itself: every other
window between two log lines takes batches that are on the device already, and the windows' times
are compared. Aims: input < 2 %, and logging, evaluation and checkpoints together < 5 %.

    python benchmarks/shares.py experiments/digits_bdkd.py [flags of the experiment]
"""

import collections
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

from kdjax import cli
from kdjax.train import loop

READY = 4  # batches that are taken again and again


class Clock:
    """Seconds by name, from the first call of `start` on."""

    def __init__(self) -> None:
        """Nothing is timed yet."""
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.running = False
        self.began = self.whole = 0.0
        self.steps = 0
        self.ready: list[Any] = []  # batches that are on the device
        self.windows: dict[bool, list[float]] = {True: [], False: []}  # seconds a step, by `cached`
        self.cached, self.since, self.taken = False, None, 0

    def start(self) -> None:
        """Count from now on."""
        if not self.running:
            self.running, self.began = True, time.perf_counter()

    def stop(self) -> None:
        """End of a loop."""
        if self.running:
            self.whole += time.perf_counter() - self.began
        self.running = False

    def next(self, batches: Iterator[Any]) -> Any:
        """A batch for the loop, of those that are ready in every other window."""
        if self.since is None:
            self.since = time.perf_counter()
        self.taken += 1
        if self.cached and len(self.ready) == READY:
            return self.ready[self.taken % READY]
        batch = self.timed("input", next)(batches)
        if len(self.ready) < READY:
            self.ready.append(jax.block_until_ready(batch))
        return batch

    def turn(self) -> None:
        """The device has done all steps of a window."""
        if self.running and self.since is not None and len(self.ready) == READY:
            self.windows[self.cached].append((time.perf_counter() - self.since) / self.taken)
        self.cached, self.since, self.taken = not self.cached, None, 0

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

    def wrapped(hooks: loop.Hooks, state: Any, batches: Iterator[Any], *rest: Any) -> Any:
        def read(rows: Any) -> Any:
            found = hooks.read(rows)  # waits for the device
            clock.turn()
            if clock.running:
                clock.steps += len(rows)
            return found

        def evaluate(*args: Any) -> None:
            clock.timed("evaluation", hooks.evaluate)(*args)
            clock.start()  # everything has been compiled once

        clock.ready = []  # each variant has batches of its own
        timed = hooks._replace(
            read=read,
            on_progress=clock.timed("logging", hooks.on_progress),
            evaluate=evaluate,
            log=clock.timed("logging", hooks.log),
            save=clock.timed("checkpoints", hooks.save),
        )
        try:
            return fit(timed, state, iter(lambda: clock.next(batches), None), *rest)
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
    # only half of the windows fetched theirs
    seconds = {**clock.seconds, "input": 2 * clock.seconds["input"]}
    for name, spent in {"steps and the rest": rest, **seconds}.items():
        print(f"| {name} | {100 * spent / clock.whole:.1f} % |")
    with_input, without = (statistics.median(clock.windows[cached]) for cached in (False, True))
    print(f"| waiting for input, by windows | {100 * (1 - without / with_input):.1f} % |")


if __name__ == "__main__":
    main()
