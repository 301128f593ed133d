"""Interleaved timing, shared by the benchmarks: calls alternate, times are medians."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from kdjax.train import malloc

malloc.keep_memory()  # as the command line does


def stepping(step: Callable, state: Any, batches: Iterator[Any]) -> Callable[[], None]:
    """Return a call that takes one training step from the state of the last one."""
    holder = {"state": state}

    def call() -> None:
        holder["state"], metrics = step(holder["state"], next(batches))
        jax.block_until_ready((holder["state"], metrics))

    return call


def medians(calls: Mapping[str, Callable], repeats: int, warm: int = 2) -> dict[str, float]:
    """Return the median seconds of each interleaved call; the first `warm` rounds are excluded.

    A call must block until its result is ready (`jax.block_until_ready`).
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + warm):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(samples) for name, samples in times.items()}
