"""The log of a run: one JSON object a line, TensorBoard scalars, and a progress bar."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rich.progress
from rich.console import Console

from kdjax.errors import RunError, UserError
from kdjax.report.tensorboard import Events

__all__ = ["MetricsLog", "Progress", "Silence", "read"]


class MetricsLog:
    """Appends to `workdir/metrics.jsonl` and, unless told otherwise, to `workdir/events`."""

    def __init__(self, workdir: Path | str, *, tensorboard: bool = True) -> None:
        """Open (and create) the log; a half-written last line of a killed run is dropped.

        Args:
          workdir: the folder of the run; created if missing.
          tensorboard: whether scalars are also written for TensorBoard.

        Raises:
          UserError: the folder or the file cannot be written.
        """
        self._path = Path(workdir) / "metrics.jsonl"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is one write, so a kill loses at most the line being written.
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(
                f"workdir {str(workdir)!r} cannot be written ({error.strerror}):"
                " name a folder in which you may create files"
            ) from error
        self._events = Events(Path(workdir) / "events") if tensorboard else None
        self._cut(self._file.seek(0, os.SEEK_END))

    def write(
        self,
        step: int,
        split: str,
        values: Mapping[str, float],
        *,
        variant: str | None = None,
        member: int | None = None,
        swept: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one line, with `variant`, `member` and `swept` (dotted path -> value) if given.

        JSON has no NaN and no infinity: such values are written as null.

        Raises:
          RunError: the line cannot be written; the file is left with its whole lines.
        """
        line: dict[str, Any] = {"step": int(step), "split": split}
        if variant is not None:
            line["variant"] = variant
        if member is not None:
            line["member"] = int(member)
        line.update({path: _plain(value) for path, value in (swept or {}).items()})
        scalars = {name: float(value) for name, value in values.items()}
        line.update({k: v if math.isfinite(v) else None for k, v in scalars.items()})
        with self._writing():
            self._append((json.dumps(line, allow_nan=False) + "\n").encode())
            if self._events is not None:
                tagged = {f"{split}/{name}": value for name, value in scalars.items()}
                self._events.add(_run(line), int(step), tagged)

    def _append(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:  # a disk that fills up takes a part of a line, and only then complains
            rest = rest[self._file.write(rest) or 0 :]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self._path.parent}: metrics cannot be written ({error.strerror}); make room, "
                "and the same command goes on from the newest checkpoint"
            ) from error

    def offset(self) -> int:
        """Bring everything to disk and return the size in bytes, for a checkpoint to keep.

        Raises:
          RunError: it cannot be written.
        """
        with self._writing():
            os.fsync(self._file.fileno())
            if self._events is not None:
                self._events.flush()
            return self._file.seek(0, os.SEEK_END)

    def truncate(self, offset: int) -> None:
        """Forget the lines behind the first `offset` bytes, so that a resumed run repeats none.

        An offset inside a line drops that line. TensorBoard hides the forgotten steps.

        Raises:
          UserError: the file is shorter than `offset`; a line that is not JSON.
        """
        size = self._file.seek(0, os.SEEK_END)
        if offset > size:
            raise UserError(
                f"{self._path}: {size} bytes, but the checkpoint was taken at {offset}:"
                " lines are missing; put the file back or start in a new workdir"
            )
        self._cut(offset)
        if self._events is not None:
            last: dict[tuple[str, str], int] = {}
            for line in read(self._path):
                last[_run(line)] = max(int(line["step"]), last.get(_run(line), 0))
            self._events.resume(last)

    def close(self) -> None:
        """Write out what waits and close the file."""
        if not self._file.closed:
            try:
                self.offset()
            finally:
                self._file.close()

    def _cut(self, size: int) -> None:
        """Shorten the file to `size` bytes, then to the end of a whole line."""
        self._file.truncate(size)
        with self._path.open("rb") as file:
            end = size
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
        self._file.truncate(end)


def read(path: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a half-written last line is left out.

    Raises:
      UserError: no such file, or another line that is not a JSON object with a step.
    """
    try:
        text = Path(path).read_bytes().decode(errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    *lines, rest = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        entry = _parse(line)
        if entry is None:
            raise UserError(f"{path}, line {number}: not a JSON object with step and split")
        found.append(entry)
    last = _parse(rest)
    return found if last is None else [*found, last]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("step"), int) and "split" in entry
    return entry if whole else None


def _run(line: Mapping[str, Any]) -> tuple[str, str]:
    """Name the TensorBoard run of a line: its variant and its member."""
    return str(line.get("variant", "default")), str(line.get("member", 0))


def _plain(value: Any) -> Any:
    """Turn a numpy or jax scalar into a JSON value; whole numbers stay whole."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Silence:
    """The log of a process that writes none: the first of several does."""

    def write(self, step: int, split: str, values: Mapping[str, float], **_: Any) -> None:
        """Write nothing."""

    def offset(self) -> int:
        """0: the record of a checkpoint is the first process's."""
        return 0

    def truncate(self, offset: int) -> None:
        """Forget nothing."""

    def close(self) -> None:
        """Nothing is open."""


class Progress:
    """Where a long run stands: a bar on a terminal, else a plain line now and then.

    Both go to stderr, so that stdout holds tables only.
    """

    def __init__(
        self, total: int, *, label: str, console: Console | None = None, interval: float = 10.0
    ) -> None:
        """Prepare for `total` steps; plain lines are at least `interval` seconds apart."""
        self._total = total
        self._label = label
        self._console = console or Console(stderr=True)
        self._interval = interval
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._printed: float | None = None
        self._waiting = ""  # the newest plain line that was not printed
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
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()
        elif self._waiting:
            self.say(self._waiting)

    def update(self, step: int, fields: Mapping[str, float], images_per_second: float) -> None:
        """Show that `step` steps are done, with `fields` such as loss and accuracy."""
        now = time.monotonic()
        parts = [f"{name} {value:.4g}" for name, value in fields.items()]
        parts.append(f"{images_per_second:,.0f} images/s")
        if self._first is None:
            self._first = (step, now)
        elif step > self._first[0]:
            seconds = (now - self._first[1]) / (step - self._first[0]) * (self._total - step)
            parts.append(f"{_clock(seconds)} left")
        status = "  ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=status)
            return
        self._waiting = f"{self._label}  step {step}/{self._total}  {status}"
        due = self._printed is None or now - self._printed >= self._interval
        if due or step >= self._total:
            self.say(self._waiting)
            self._printed, self._waiting = now, ""

    def say(self, text: str) -> None:
        """Print a line above the bar, as it stands: nothing in it is read as markup."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
