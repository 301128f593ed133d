"""The loop: steps, and what happens between them, in a fixed order.

After a step whose number is due: metrics are read and checked, written, validated upon, and
only then is the state saved; a checkpoint therefore never follows a value that was not finite,
and the metrics file is complete up to it.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from kdjax.train import multihost
from kdjax.types import RunError, State

Values = Mapping[str, np.ndarray]  # name -> [members]


class Every(NamedTuple):
    """How often things happen, in steps; 0 means never (the last step always counts)."""

    log: int
    evaluate: int
    checkpoint: int
    grad_norms: int


class Hooks(NamedTuple):
    """What the loop calls; all but `step` are called between steps, on the host.

    What is logged are the values of that very step, so that a resumed run logs the same.

    `log(step, values)`, `evaluate(step, state)`, `save(state)`, `grad_norms(state, batch)`,
    `tick(step, values, images_per_second)`, `warn(text)`. `several(state, batches)`, if there is
    one, takes `together` steps in one dispatch; its metrics have a leading axis of steps.
    """

    step: Callable[[State, Any], tuple[State, Mapping[str, Any]]]
    read: Callable[[Any], Any]
    log: Callable[[int, Values], None]
    evaluate: Callable[[int, State], None]
    save: Callable[[State], None]
    grad_norms: Callable[[State, Any], Values]
    tick: Callable[[int, Values, float], None]
    warn: Callable[[str], None]
    several: Callable[[State, Any], tuple[State, Mapping[str, Any]]] | None = None
    together: int = 1


class Stopped(RunError):
    """The process was asked to end; the state of `step` has been saved."""


class Health:
    """Which members are still finite, and where the others ceased to be."""

    def __init__(
        self,
        members: int,
        known: Mapping[str, str] | None = None,
        *,
        first: int = 0,
        whole: bool = True,
    ) -> None:
        """Start with what an earlier part of the run found (row -> what happened).

        Args:
          members: rows of this program.
          known: from a checkpoint.
          first: number of the first row's member, by which the lines name it.
          whole: these are all members there are, so that the run ends when none is finite.
        """
        self.members, self.first, self.whole = members, first, whole
        self.diverged: dict[int, str] = {int(m): text for m, text in (known or {}).items()}
        self.unfinished: set[str] = set()  # terms whose iterations did not suffice

    def check(self, first_step: int, rows: Sequence[Values]) -> list[str]:
        """Look for the first non-finite value of each member; returns a line for each new one.

        Another line tells, once a term, that its iterations did not converge.

        Raises:
          RunError: no member is finite any more, and these are all.
        """
        said = []
        for offset, row in enumerate(rows):
            for member in sorted(set(range(self.members)) - set(self.diverged)):
                name = _culprit(row, member)
                if name is not None:
                    self.diverged[member] = f"step {first_step + offset}: {name} is not finite"
                    said.append(f"member {self.first + member}: {self.diverged[member]}")
            said += self._not_converged(first_step + offset, row)
        if self.whole and len(self.diverged) == self.members:
            known = list(self.diverged.items())[:3]
            every = "; ".join(f"member {self.first + m}: {text}" for m, text in known)
            where = every if self.members > 1 else next(iter(self.diverged.values()))
            raise RunError(
                f"{where}. The last good checkpoint is kept; a lower learning rate, a higher "
                "temperature or optimizer.clip_norm would help"
            )
        return said

    def _not_converged(self, step: int, row: Values) -> list[str]:
        said = []
        for name in sorted(row):
            term = name.removesuffix("/converged")
            # a share of 1 summed over devices may fall short of 1 by a rounding
            if term == name or term in self.unfinished or min(row[name]) > 0.99:
                continue
            self.unfinished.add(term)
            error, count = (max(row[f"{term}/{key}"]) for key in ("row_error", "iterations"))
            said.append(
                f"step {step}: {term} did not converge (row_error {error:.2g} after {count:.0f} "
                "iterations); raise num_iters or epsilon"
            )
        return said


def _culprit(row: Values, member: int) -> str | None:
    """The most telling non-finite metric: a term, else a role's loss, else its gradient."""
    order = ("/raw", "/weighted", "/loss", "/grad_norm", "")
    bad = [name for name, values in row.items() if not math.isfinite(values[member])]
    ranked = sorted(bad, key=lambda n: next(i for i, end in enumerate(order) if n.endswith(end)))
    if not ranked:
        return None
    return ranked[0].removesuffix("/raw").removesuffix("/weighted")


@contextmanager
def termination():
    """Yield a function of the step that tells whether SIGTERM or SIGINT has arrived since.

    With several processes it tells whether one of them was asked, at the same step in all.
    """
    if multihost.count() > 1:
        yield multihost.preempted
        return
    seen: list[int] = []
    old = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.signal(number, lambda n, _: seen.append(n))
    except ValueError:  # not the main thread: signals are the caller's business
        pass
    try:
        yield lambda _: bool(seen)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit(
    hooks: Hooks,
    state: State,
    batches: Iterator[Any],
    *,
    start: int,
    num_steps: int,
    images_per_step: int,
    every: Every,
    health: Health,
) -> State:
    """Train from step `start` to `num_steps`.

    Args:
      hooks: the compiled step and what to do between steps.
      state: on the devices; consumed.
      batches: device batches, the first being number `start`.
      start: steps already done.
      num_steps: the number of the last step.
      images_per_step: for the speed shown.
      every: how often to log, evaluate, save.
      health: what is known of diverged members; updated.

    Raises:
      RunError: no member is finite any more.
      Stopped: SIGTERM or SIGINT came; the state has been saved.
    """
    rows, mark = [], time.perf_counter()
    number = start
    with termination() as asked:
        while number < num_steps:
            state, batch, metrics, count = _advance(hooks, state, batches, number, num_steps, every)
            number += count
            rows.append((metrics, count))
            last, stopping = number == num_steps, asked(number)
            logging = _due(every.log, number) or last
            saving = _due(every.checkpoint, number) or last or stopping
            evaluating = _due(every.evaluate, number) or last
            if not (logging or saving or evaluating):
                continue
            window = _single(hooks.read([metrics for metrics, _ in rows]), [n for _, n in rows])
            first, rows = number - len(window) + 1, []
            for line in health.check(first, window):
                hooks.warn(line)
            speed = images_per_step * len(window) / (time.perf_counter() - mark)
            hooks.tick(number, window[-1], speed)
            if logging:
                norms = hooks.grad_norms(state, batch) if _due(every.grad_norms, number) else {}
                hooks.log(number, {**window[-1], **norms})
            if evaluating:
                hooks.evaluate(number, state)
            if saving:
                hooks.save(state)
            if stopping and not last:
                raise Stopped(f"stopped at step {number}, which is saved")
            mark = time.perf_counter()
    return state


def _advance(
    hooks: Hooks, state: State, batches: Iterator[Any], done: int, num_steps: int, every: Every
) -> tuple[State, Any, Mapping[str, Any], int]:
    """Take one step, or several if nothing is due within them; the last batch and how many.

    Which steps go out together depends on their numbers alone, so that a resumed run does alike.
    """
    if hooks.several is not None:
        periods = [p for p in (every.log, every.evaluate, every.checkpoint) if p > 0]
        room = min([num_steps - done, *(p - done % p for p in periods)])
        if room >= hooks.together:
            found = [next(batches) for _ in range(hooks.together)]
            state, metrics = hooks.several(state, tuple(found))
            return state, found[-1], metrics, hooks.together
    batch = next(batches)
    state, metrics = hooks.step(state, batch)
    return state, batch, metrics, 1


def _single(window: Sequence[Values], counts: Sequence[int]) -> list[Values]:
    """Metrics step by step, of dispatches of one step and of several."""
    found: list[Values] = []
    for values, count in zip(window, counts, strict=True):
        if count == 1:
            found.append(values)
        else:
            found += [{name: x[row] for name, x in values.items()} for row in range(count)]
    return found


def _due(period: int, number: int) -> bool:
    return period > 0 and number % period == 0
