"""Shares of a whole run's time: steps, input, logging, evaluation, checkpoints.

Runs `kdjax train` on any experiment and times its loop from inside: the host's time in
`next(batches)`, logging, validation and saving, as shares of the loop. Compilation is excluded: the
time before the first validation is not counted. The host fetches the next batch while the device
computes, so the device's waiting time is measured separately: every other window between two log
lines uses batches that are already on the device, and the times of the windows are compared.
Aims: input < 2 %; logging, evaluation and checkpoints together < 5 %.

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

READY = 4  # number of batches that are reused


class Clock:
    """Accumulates seconds by name after the first call of `start`."""

    def __init__(self) -> None:
        """Start with no times."""
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.running = False
        self.began = self.total = 0.0
        self.steps = 0
        self.ready: list[Any] = []  # batches on the device
        self.windows: dict[bool, list[float]] = {
            True: [],
            False: [],
        }  # seconds a step
        self.cached, self.since, self.count = False, None, 0

    def start(self) -> None:
        """Start counting."""
        if not self.running:
            self.running, self.began = True, time.perf_counter()

    def stop(self) -> None:
        """Stop counting at the end of a loop."""
        if self.running:
            self.total += time.perf_counter() - self.began
        self.running = False

    def next(self, batches: Iterator[Any]) -> Any:
        """Return the next batch; in every other window a batch that is on the device."""
        if self.since is None:
            self.since = time.perf_counter()
        self.count += 1
        if self.cached and len(self.ready) == READY:
            return self.ready[self.count % READY]
        batch = self.timed("input", next)(batches)
        if len(self.ready) < READY:
            self.ready.append(jax.block_until_ready(batch))
        return batch

    def turn(self) -> None:
        """End a window: the device has finished its steps."""
        if self.running and self.since is not None and len(self.ready) == READY:
            self.windows[self.cached].append((time.perf_counter() - self.since) / self.count)
        self.cached, self.since, self.count = not self.cached, None, 0

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `call` so that its time is added to `name`."""

        def inner(*args: Any) -> Any:
            before = time.perf_counter()
            result = call(*args)
            if self.running:
                self.seconds[name] += time.perf_counter() - before
            return result

        return inner


def watch(clock: Clock) -> Callable[..., Any]:
    """Wrap `loop.fit` so that its parts are timed."""
    fit = loop.fit

    def wrapped(hooks: loop.Hooks, state: Any, batches: Iterator[Any], *rest: Any) -> Any:
        def read(rows: Any) -> Any:
            result = hooks.read(rows)  # waits for the device
            clock.turn()
            if clock.running:
                clock.steps += len(rows)
            return result

        def evaluate(*args: Any) -> None:
            clock.timed("evaluation", hooks.evaluate)(*args)
            clock.start()  # everything is compiled now

        clock.ready = []  # each variant has its own batches
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
    if status or not clock.total:
        sys.exit("the run failed, or was too short: it must validate at least twice")
    print(
        f"\njax {jax.__version__} on {jax.default_backend()}, {sys.argv[1]}, {clock.steps} steps\n"
    )
    print("| part | share of the loop |\n|---|---:|")
    rest = clock.total - sum(clock.seconds.values())
    # only half of the windows fetch batches
    seconds = {**clock.seconds, "input": 2 * clock.seconds["input"]}
    for name, spent in {"steps and the rest": rest, **seconds}.items():
        print(f"| {name} | {100 * spent / clock.total:.1f} % |")
    with_input, without = (statistics.median(clock.windows[cached]) for cached in (False, True))
    print(f"| waiting for input, by windows | {100 * (1 - without / with_input):.1f} % |")


if __name__ == "__main__":
    main()
