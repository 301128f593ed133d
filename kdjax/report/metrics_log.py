"""The log of a run: metrics.jsonl, with one JSON object per line, and TensorBoard scalars."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kdjax.errors import RunError, UserError
from kdjax.report import files, staging
from kdjax.report.files import Path
from kdjax.report.tensorboard import Events


class MetricsLog:
    """Appends to `workdir/metrics.jsonl` and, for TensorBoard, to `workdir/events`.

    Both are staged on the local disk if the workdir is in a bucket, see `publish`.
    """

    def __init__(self, workdir: Path, *, tensorboard: bool = True) -> None:
        """Open or create the log; remove an incomplete last line, left by a killed run.

        Args:
          workdir: the folder of the run; created if missing.
          tensorboard: also write scalars for TensorBoard.

        Raises:
          UserError: the folder or the file cannot be written.
        """
        self._name = str(workdir / "metrics.jsonl")
        try:
            self._staged = staging.Staged(workdir, ("metrics.jsonl", "events"))
            self._path = self._staged.folder / "metrics.jsonl"
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: each line is one write, so a kill loses at most the current line.
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(
                f"workdir {str(workdir)!r} cannot be written ({error.strerror}):"
                " use a folder in which you may create files"
            ) from error
        self._events = Events(self._staged.folder / "events") if tensorboard else None
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
        """Append one line, with `variant`, `member` and `swept` (dotted path -> value) if not None.

        JSON has no NaN and no infinity: such values are written as null.

        Raises:
          RunError: the line cannot be written; earlier lines are not changed.
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
        while rest:  # on a full disk, a part of the line may be written before the error
            rest = rest[self._file.write(rest) or 0 :]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self._path.parent}: metrics cannot be written ({error.strerror}); free space, "
                "then run the same command again to resume from the newest checkpoint"
            ) from error

    def offset(self) -> int:
        """Write everything to disk and return the size in bytes, which a checkpoint records.

        Raises:
          RunError: the file cannot be written.
        """
        with self._writing():
            os.fsync(self._file.fileno())
            if self._events is not None:
                self._events.flush()
            return self._file.seek(0, os.SEEK_END)

    def truncate(self, offset: int) -> None:
        """Remove the lines after the first `offset` bytes, which a resumed run writes again.

        A line that contains the offset is removed, too. TensorBoard hides the removed steps.

        Raises:
          UserError: the file is shorter than `offset`; a line that is not JSON.
        """
        size = self._file.seek(0, os.SEEK_END)
        if offset > size:
            raise UserError(
                f"{self._name}: {size} bytes, but the checkpoint was saved at {offset}:"
                " lines are missing; restore the file or start in a new workdir"
            )
        self._cut(offset)
        if self._events is not None:
            last_steps: dict[tuple[str, str], int] = {}
            for line in read(self._path):
                last_steps[_run(line)] = max(int(line["step"]), last_steps.get(_run(line), 0))
            self._events.hide_after(last_steps)

    def publish(self) -> None:
        """Upload what is on the disk, if the workdir is in a bucket.

        A checkpoint calls this before it is committed: a resumed run finds the lines up to it.

        Raises:
          RunError: the bucket cannot be written.
        """
        self._staged.upload()

    def close(self) -> None:
        """Write everything to disk, close the file, and upload it if the workdir is in a bucket."""
        if not self._file.closed:
            try:
                self.offset()
                self.publish()
            finally:
                self._file.close()
                self._staged.close()

    def _cut(self, size: int) -> None:
        """Shorten the file to `size` bytes, then to the end of its last complete line."""
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


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, without an incomplete last line.

    Raises:
      UserError: no such file, or an earlier line that is not a JSON object with a step.
    """
    try:
        text = files.read_bytes(path).decode(errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    *lines, rest = text.split("\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _parse(line)
        if entry is None:
            raise UserError(f"{path}, line {number}: not a JSON object with step and split")
        entries.append(entry)
    last = _parse(rest)
    return entries if last is None else [*entries, last]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_valid = isinstance(entry, dict) and isinstance(entry.get("step"), int) and "split" in entry
    return entry if is_valid else None


def _run(line: Mapping[str, Any]) -> tuple[str, str]:
    """Return the TensorBoard run of a line: its variant and its member."""
    return str(line.get("variant", "default")), str(line.get("member", 0))


def _plain(value: Any) -> Any:
    """Return a numpy or jax scalar as a JSON value; integers remain integers."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


class NullLog:
    """The log of all processes except the first: it writes nothing."""

    def write(self, step: int, split: str, values: Mapping[str, float], **_: Any) -> None:
        """Write nothing."""

    def offset(self) -> int:
        """Return 0; the first process records the offset of a checkpoint."""
        return 0

    def truncate(self, offset: int) -> None:
        """Do nothing."""

    def publish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
