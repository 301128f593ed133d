"""The progress of a run on stderr."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console


class Progress:
    """Shows the progress and the time left: a bar on a terminal, elsewhere a line at intervals.

    Both go to stderr; stdout has only tables.
    """

    def __init__(
        self,
        total: int,
        *,
        label: str,
        unit: str = "images",
        console: Console | None = None,
        interval: float = 10.0,
    ) -> None:
        """Prepare for `total` steps; lines are at least `interval` seconds apart.

        `unit`: the name of examples in the speed, such as "images".
        """
        self._unit = unit
        self._total = total
        self._label = label
        self._console = console or Console(stderr=True)
        self._interval = interval
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._printed: float | None = None
        self._pending = ""  # the newest line that has not been printed
        self._bar: rich.progress.Progress | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[status]}", markup=False),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(label, total=total, status="")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar, or print the last line."""
        if self._bar is not None:
            self._bar.stop()
        elif self._pending:
            self.say(self._pending)

    def update(self, step: int, fields: Mapping[str, float], speed: float) -> None:
        """Show that `step` steps are done, with `fields` such as loss and accuracy."""
        now = time.monotonic()
        parts = [f"{name} {value:.4g}" for name, value in fields.items()]
        parts.append(f"{speed:,.0f} {self._unit}/s")
        if self._first is None:
            self._first = (step, now)
        elif step > self._first[0]:
            seconds = (now - self._first[1]) / (step - self._first[0]) * (self._total - step)
            parts.append(f"{_clock(seconds)} left")
        status = "  ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=status)
            return
        self._pending = f"{self._label}  step {step}/{self._total}  {status}"
        due = self._printed is None or now - self._printed >= self._interval
        if due or step >= self._total:
            self.say(self._pending)
            self._printed, self._pending = now, ""

    def say(self, text: str) -> None:
        """Print a line above the bar as plain text, without markup."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
