"""The lock of a workdir: one run at a time.

On a disk it is a lock of the kernel, which ends with the process. In a bucket it is an object that
its holder rewrites every few seconds. Each write names the generation that it replaces, so that of
several writers one succeeds. A lock that stops changing is taken over; no clocks are compared.
"""

import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kdjax.errors import UserError
from kdjax.report import files
from kdjax.report.files import Path

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # without a heartbeat, after which a lock is taken over
_NAME = ".lock"
_RETRIES = {"max_retries": 8, "initial_delay": "500ms", "max_delay": "8s"}


@contextmanager
def occupy(workdir: Path) -> Iterator[None]:
    """Lock a workdir for this process, until the context or the process ends.

    Raises:
      UserError: it cannot be written, is an address of another kind, or another process has locked
        it.
    """
    files.check_access(workdir)
    with (_object_lock if files.is_remote(workdir) else _kernel_lock)(workdir):
        yield


@contextmanager
def _kernel_lock(workdir: Path) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / _NAME).open("w")
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written ({error.strerror})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _in_use(workdir, "another process") from None
        yield


@contextmanager
def _object_lock(workdir: Path) -> Iterator[None]:
    try:
        lock = ObjectLock(workdir)
        lock.take()
    except UserError:
        raise
    except Exception as error:
        text = files.reason(error)
        raise UserError(f"workdir {workdir} cannot be written ({text})") from error
    ended = threading.Event()
    heart = threading.Thread(target=lock.beat, args=(ended, _exit_at_once), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join(timeout=HEARTBEAT_SECONDS)
        lock.release()


class ObjectLock:
    """The lock object of a workdir in a bucket."""

    def __init__(self, workdir: Path) -> None:
        """Open the bucket; `take` locks."""
        import tensorstore

        context = tensorstore.Context({"gcs_request_retries": _RETRIES})
        self.workdir = workdir
        self._store: Any = tensorstore.KvStore.open(f"{workdir}/", context=context).result()
        pid = os.getpid()
        self._holder = {
            "machine": _machine(), "pid": pid, "started": _start(pid), "id": uuid.uuid4().hex,
        }  # fmt: skip
        self._beats, self._generation = 0, b""

    def take(self) -> None:
        """Create the object, or replace that of a process that has ended or is silent.

        Raises:
          UserError: another process holds the lock.
          Exception: the bucket cannot be written.
        """
        seen = self._read()
        if seen.state == "value" and not _has_ended(_parse(seen.value)):
            seen = self._watch(seen)
        if not self._write(seen.stamp.generation):
            raise _in_use(self.workdir, _describe(self._read().value))
        if seen.state == "value":
            _say(f"the lock of {self.workdir} was left by {_describe(seen.value)}; taken over")

    def _watch(self, first: Any) -> Any:
        """Return the object when it is removed, or has not changed for `STALE_SECONDS`."""
        holder = _parse(first.value)
        if holder.get("machine") != _machine():
            _say(
                f"{self.workdir} is locked by {_describe(first.value)}; waiting up to "
                f"{STALE_SECONDS:.0f} s for its heartbeat"
            )
            end = time.monotonic() + STALE_SECONDS
            while time.monotonic() < end:
                time.sleep(HEARTBEAT_SECONDS / 10)
                seen = self._read()
                if seen.state != "value":
                    return seen
                if seen.stamp.generation != first.stamp.generation:
                    break
            else:
                return first
        raise _in_use(self.workdir, _describe(first.value))

    def beat(self, ended: threading.Event, on_loss: Callable[[str], None]) -> None:
        """Write the object again and again; call `on_loss` with a line if another process has."""
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                held = self._write(self._generation)
            except Exception:  # noqa: BLE001  the bucket does not answer; the next one decides
                continue
            if not held and not ended.is_set():
                on_loss(
                    f"the lock of {self.workdir} was taken over by "
                    f"{_describe(self._read().value)}, because this process was silent for "
                    f"{STALE_SECONDS:.0f} s or more; it stops"
                )

    def release(self) -> None:
        """Remove the object, if it is still that of this process."""
        with suppress(Exception):  # it becomes stale
            self._store.write(_NAME, None, if_equal=self._generation).result(timeout=30)

    def _read(self) -> Any:
        return self._store.read(_NAME).result()

    def _write(self, generation: bytes) -> bool:
        """Write the object if it has this generation; return whether it did."""
        self._beats += 1
        content = json.dumps({**self._holder, "heartbeat": self._beats}).encode()
        stamp = self._store.write(_NAME, content, if_equal=generation).result()
        if not stamp.generation:
            # a write whose answer was lost has been repeated, and refused by its own first try
            seen = self._read()
            if seen.value != content:
                return False
            stamp = seen.stamp
        self._generation = stamp.generation
        return True


def _in_use(workdir: Path, holder: str) -> UserError:
    return UserError(
        f"workdir {workdir} is in use by {holder}; wait for it, or use another workdir"
    )


def _parse(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError):
        return {}


def _describe(content: bytes) -> str:
    holder = _parse(content)
    machine = str(holder.get("machine", "another machine")).partition(" ")[0]
    return f"another process ({machine}, pid {holder.get('pid', '?')})"


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return whether a holder was a process of this machine that has ended."""
    same = holder.get("machine") == _machine() and "pid" in holder
    return same and _start(holder["pid"]) != holder.get("started")


def _machine() -> str:
    """Return a name of this machine, since its start, and of its space of process numbers."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            space = f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # without /proc every process counts as one of another machine
        space = uuid.uuid4().hex
    return f"{socket.gethostname()} {space}"


def _start(pid: int) -> str | None:
    """Return the time at which a process of this machine started; None if there is none."""
    try:
        with open(f"/proc/{int(pid)}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return None


def _exit_at_once(line: str) -> None:
    """End the process; another one writes to its workdir."""
    _say(line)
    os._exit(1)


def _say(text: str) -> None:
    sys.stderr.write(f"kdjax: {text}\n")
    sys.stderr.flush()
