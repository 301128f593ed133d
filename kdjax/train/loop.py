"""The training loop: steps, and a fixed order of the actions after a step.

The order is: read and check the metrics, write them, validate, save the state. Therefore no
checkpoint follows a non-finite value, and the metrics file is complete up to each checkpoint.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax.errors import RunError
from kdjax.train import malloc, multihost
from kdjax.types import State

Values = Mapping[str, np.ndarray]  # name -> [members]


class Every(NamedTuple):
    """Periods in steps; 0 means only at the last step, and for `grad_norms` never."""

    log: int
    evaluate: int
    checkpoint: int
    grad_norms: int


class Plan(NamedTuple):
    """The steps to take: from `start` (steps already done) to `num_steps`.

    `images_per_step` is for the displayed speed.
    """

    start: int
    num_steps: int
    images_per_step: int
    every: Every


class Hooks(NamedTuple):
    """Functions that the loop calls; all but `step` run between steps, on the host.

    The logged values are those of the logged step, so a resumed run logs the same values.

    `log(step, values)`, `evaluate(step, state)`, `save(state)`, `grad_norms(state, batch)`,
    `on_progress(step, values, images_per_second)`, `warn(text)`. `multi_step(state, batches)`, if
    given, takes `steps_per_dispatch` steps in one dispatch; its metrics have a last axis of
    steps.
    """

    step: Callable[[State, Any], tuple[State, Mapping[str, Any]]]
    read: Callable[[Any], Any]
    log: Callable[[int, Values], None]
    evaluate: Callable[[int, State], None]
    save: Callable[[State], None]
    grad_norms: Callable[[State, Any], Values]
    on_progress: Callable[[int, Values, float], None]
    warn: Callable[[str], None]
    multi_step: Callable[[State, Any], tuple[State, Mapping[str, Any]]] | None = None
    steps_per_dispatch: int = 1


class Stopped(RunError):
    """The process was asked to end; the state is saved, so that the same command resumes."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


class DivergenceTracker:
    """Tracks diverged members, and terms whose iterations did not converge."""

    def __init__(
        self,
        members: int,
        diverged: Mapping[str, str] | None = None,
        *,
        numbers: Sequence[int] | None = None,
        covers_all: bool = True,
    ) -> None:
        """Start with the members that diverged in an earlier part of the run.

        Args:
          members: rows of this program.
          diverged: from a checkpoint, row -> description.
          numbers: the member of each row, for the messages; None: members are numbered by row.
          covers_all: there are no other members, so the run ends if none is finite.
        """
        self.members, self.covers_all = members, covers_all
        self.numbers = range(members) if numbers is None else numbers
        self.diverged: dict[int, str] = {int(m): text for m, text in (diverged or {}).items()}
        self.unconverged_terms: set[str] = set()

    def check(self, first_step: int, rows: Sequence[Values]) -> list[str]:
        """Find the first non-finite value of each member; return a line for each new one.

        Another line, once a term, reports iterations that did not converge.

        Raises:
          RunError: no member is finite, and there are no others.
        """
        lines = []
        for offset, row in enumerate(rows):
            for member in sorted(set(range(self.members)) - set(self.diverged)):
                name = first_nonfinite_metric(row, member)
                if name is not None:
                    self.diverged[member] = f"step {first_step + offset}: {name} is not finite"
                    lines.append(f"member {self.numbers[member]}: {self.diverged[member]}")
            lines += self._not_converged(first_step + offset, row)
        self._check_one_is_finite()
        return lines

    def check_scores(self, step: int, scores: Values) -> list[str]:
        """Find the members whose NLL in an evaluation is NaN; return a line for each new one.

        Raises:
          RunError: no member is finite, and there are no others.
        """
        lines = []
        for name in sorted(name for name in scores if name.endswith("/nll")):
            for member, value in enumerate(scores[name]):
                if math.isnan(value) and member not in self.diverged:
                    self.diverged[member] = f"step {step}: {name} of validation is NaN"
                    lines.append(f"member {self.numbers[member]}: {self.diverged[member]}")
        if lines:
            self._check_one_is_finite()
        return lines

    def _check_one_is_finite(self) -> None:
        if self.covers_all and len(self.diverged) == self.members:
            known = list(self.diverged.items())[:3]
            every = "; ".join(f"member {self.numbers[m]}: {text}" for m, text in known)
            where = every if self.members > 1 else next(iter(self.diverged.values()))
            raise RunError(
                f"{where}. The last good checkpoint is kept; a lower learning rate, a higher "
                "temperature or optimizer.clip_norm would help"
            )

    def _not_converged(self, step: int, row: Values) -> list[str]:
        lines = []
        for name in sorted(row):
            term = name.removesuffix("/converged")
            # shares summed over devices may be below 1 by a rounding
            if term == name or term in self.unconverged_terms or min(row[name]) > 0.99:
                continue
            self.unconverged_terms.add(term)
            error, count = (max(row[f"{term}/{key}"]) for key in ("row_error", "iterations"))
            lines.append(
                f"step {step}: {term} did not converge (row_error {error:.2g} after {count:.0f} "
                "iterations); raise num_iters or epsilon"
            )
        return lines


def first_nonfinite_metric(row: Values, member: int) -> str | None:
    """Return the most specific non-finite metric: a term, else a role's loss, else its gradient."""
    order = ("/raw", "/weighted", "/loss", "/grad_norm", "")
    bad = [name for name, values in row.items() if not math.isfinite(values[member])]
    ranked = sorted(bad, key=lambda n: next(i for i, end in enumerate(order) if n.endswith(end)))
    if not ranked:
        return None
    return ranked[0].removesuffix("/raw").removesuffix("/weighted")


@contextmanager
def termination():
    """Yield a function, for each step, that returns whether SIGTERM or SIGINT has arrived since.

    With several processes it becomes true at the same step in all after a SIGTERM to any of them.
    """
    if multihost.count() > 1:
        yield multihost.preempted
        return
    received: list[int] = []
    old = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.signal(number, lambda n, _: received.append(n))
    except ValueError:  # not the main thread: the caller handles signals
        pass
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit(
    hooks: Hooks, state: State, batches: Iterator[Any], plan: Plan, tracker: DivergenceTracker
) -> State:
    """Train from step `plan.start` to `plan.num_steps`.

    Args:
      hooks: the compiled step, and the functions to call between steps.
      state: on the devices; consumed.
      batches: device batches, the first being number `plan.start`.
      plan: steps and periods.
      tracker: the diverged members so far; updated.

    Raises:
      RunError: no member is finite.
      Stopped: SIGTERM or SIGINT arrived; the state has been saved.
    """
    rows, start_time = [], time.perf_counter()
    number, every = plan.start, plan.every
    with termination() as stop_requested:
        while number < plan.num_steps:
            state, taken, norms = _advance(hooks, state, batches, number, plan)
            number += sum(count for _, count in taken)
            rows += taken
            last, stopping = number == plan.num_steps, stop_requested()
            logging = _due(every.log, number) or bool(norms) or last
            saving = _due(every.checkpoint, number) or last or stopping
            evaluating = _due(every.evaluate, number) or last
            if not (logging or saving or evaluating):
                continue
            window = _by_step(hooks.read([metrics for metrics, _ in rows]), [n for _, n in rows])
            first, rows = number - len(window) + 1, []
            for line in tracker.check(first, window):
                hooks.warn(line)
            speed = plan.images_per_step * len(window) / (time.perf_counter() - start_time)
            hooks.on_progress(number, window[-1], speed)
            if logging:
                hooks.log(number, {**window[-1], **norms})
            if evaluating:
                hooks.evaluate(number, state)
            if saving:
                hooks.save(state)
            if stopping and not last:
                raise Stopped(
                    f"stopped at step {number}, which is saved; the same command resumes from there"
                )
            malloc.trim_memory()
            start_time = time.perf_counter()
    return state


def _advance(
    hooks: Hooks, state: State, batches: Iterator[Any], done: int, plan: Plan
) -> tuple[State, list[tuple[Mapping[str, Any], int]], Mapping[str, Any]]:
    """Take one step, or `steps_per_dispatch` if nothing is due within them.

    Those of batches of one shape are one dispatch; batches of texts have several lengths. All this
    depends only on the steps' numbers, so a resumed run has the same dispatches.

    Returns:
      The state, the metrics and number of steps of each dispatch, and the norms of the terms'
      gradients of a step for which they are due.
    """
    every, size = plan.every, hooks.steps_per_dispatch
    remaining = [plan.num_steps - done, *(p - done % p for p in every if p > 0)]
    if every.grad_norms > 0:  # of the state before the step
        remaining.append(every.grad_norms - 1 - done % every.grad_norms)
    if min(remaining) < size:
        size = 1
    dispatched = tuple(next(batches) for _ in range(size))
    if hooks.multi_step is not None and size > 1 and len(set(map(_shapes, dispatched))) == 1:
        state, metrics = hooks.multi_step(state, dispatched)
        return state, [(metrics, size)], {}
    norms = hooks.grad_norms(state, dispatched[0]) if _due(every.grad_norms, done + 1) else {}
    taken = []
    for batch in dispatched:
        state, metrics = hooks.step(state, batch)
        taken.append((metrics, 1))
    return state, taken, norms


def _shapes(batch: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(map(np.shape, jax.tree.leaves(batch)))


def _by_step(window: Sequence[Values], counts: Sequence[int]) -> list[Values]:
    """Split the metrics of dispatches of one or more steps into those of each step."""
    rows: list[Values] = []
    for values, count in zip(window, counts, strict=True):
        if count == 1:
            rows.append(values)
        else:
            rows += [{name: x[..., row] for name, x in values.items()} for row in range(count)]
    return rows


def _due(period: int, number: int) -> bool:
    return period > 0 and number % period == 0
