# pyright: reportAttributeAccessIssue=false
# The generated protobuf modules build their classes at import time, so pyright does not see them.
"""TensorBoard event files, written without open handles or threads.

A sweep has hundreds of members, and TensorBoard needs a folder for each. tensorboardX's writer
has one open file, one queue and one thread per folder. Here records are collected in memory and
appended in groups, so any number of members works.
"""

import re
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

# Records are written when a folder has this many, or after this time.
_MAX_PENDING = 64
_MAX_SECONDS = 10.0


class Events:
    """Scalars by folder: `root/<variant>/<member>/events.out.tfevents.<n>`."""

    def __init__(self, root: Path) -> None:
        """Write below `root`; nothing is created before the first scalar."""
        self._root = root
        self._files: dict[Path, Path] = {}  # folder -> the file this process appends to
        self._pending: dict[Path, list[bytes]] = {}
        self._last_flush = time.monotonic()
        self._last_steps: Mapping[tuple[str, str], int] | None = None

    def hide_after(self, last_steps: Mapping[tuple[str, str], int]) -> None:
        """Hide the records of earlier processes after `last_steps[variant, member]`.

        Folders that are missing from `last_steps` are hidden from step 0 on.
        """
        self._files.clear()
        self._pending.clear()
        self._last_steps = dict(last_steps)

    def add(self, run: tuple[str, str], step: int, scalars: Mapping[str, float]) -> None:
        """Append `scalars` (tag -> value) of one step to the folder of `run`."""
        folder = self._root.joinpath(*(_folder_name(part) for part in run))
        values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
        event = event_pb2.Event(
            wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values)
        )
        if folder not in self._files:
            self._open(folder, run)
        pending = self._pending.setdefault(folder, [])
        pending.append(_record(event))
        if len(pending) >= _MAX_PENDING:
            self._append(folder)
        if time.monotonic() - self._last_flush > _MAX_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all pending records."""
        for folder in self._pending:
            self._append(folder)
        self._last_flush = time.monotonic()

    def _open(self, folder: Path, run: tuple[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = len(list(folder.glob("events.out.tfevents.*")))
        # A new file for each process: TensorBoard reads nothing after a half-written record.
        self._files[folder] = folder / f"events.out.tfevents.{earlier:010d}.kdjax"
        head = [event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")]
        if earlier and self._last_steps is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            first = self._last_steps.get(run, -1) + 1
            head.append(event_pb2.Event(wall_time=time.time(), step=first, session_log=start))
        self._pending[folder] = [_record(event) for event in head]

    def _append(self, folder: Path) -> None:
        if self._pending[folder]:
            with self._files[folder].open("ab") as file:
                file.write(b"".join(self._pending[folder]))
            self._pending[folder] = []


def _record(event: event_pb2.Event) -> bytes:
    """Frame one event: length, checksum of the length, data, checksum of the data."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def _folder_name(text: str) -> str:
    """Return a folder name that stays inside its parent: "../x" -> "_._x"."""
    return re.sub(r"[^\w.\-]", "_", re.sub(r"^\.", "_", text)) or "_"
