"""One run in several processes: writing by process 0, shared values, and gathered rows.

Every process runs the same program with the same config, and calls the functions below in the same
order, because most of them wait for the others. Only process 0 writes files and logs; all processes
write checkpoints. With one process no function communicates.
"""

import hashlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from kdjax.errors import RunError, UserError
from kdjax.types import PyTree

T = TypeVar("T")
# Words in the errors of collectives and barriers if a process does not respond.
_PEER_LOST = ("Gloo", "gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "NCCL", "preempted")
_TEXT_BYTES = 1024  # of a line that is sent between processes
_CHUNK_BYTES = 1 << 26  # of rows that a process sends at once: every device receives all of them
_sync_points = itertools.count(1)  # of `preempted`: steps begin again with each variant
_is_preempted = threading.Event()


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def is_first() -> bool:
    """Return whether this is process 0, which writes and logs."""
    return jax.process_index() == 0


def devices(number: int) -> list[Any]:
    """Return `number` devices, equally many of each process and adjacent by process.

    So the rows of a batch that a process reads are those that its devices hold. `number` is a
    multiple of the number of processes.
    """
    if count() == 1:
        return jax.devices()[:number]
    each = number // count()
    by_process = [[d for d in jax.devices() if d.process_index == p] for p in range(count())]
    return [device for devices in by_process for device in devices[:each]]


def local_devices(number: int) -> list[Any]:
    """Return those of `devices(number)` that belong to this process."""
    return [d for d in devices(number) if d.process_index == jax.process_index()]


def run_on_first(action: Callable[[], object]) -> None:
    """Run an action in process 0 while the others wait.

    Raises:
      UserError, RunError: the error of the action, in every process.
    """
    if count() == 1:
        action()
        return
    caught: UserError | RunError | None = None
    if is_first():
        try:
            action()
        except (UserError, RunError) as error:
            caught = error
    kind = {None: "", UserError: "user ", RunError: "run "}
    message = broadcast_text(kind.get(type(caught), "run ") + str(caught) if caught else "")
    if caught is not None:
        raise caught
    if message:
        is_mistake, text = message.startswith("user "), message.partition(" ")[2]
        raise UserError(text) if is_mistake else RunError(text)


def first_then_all(action: Callable[[], T]) -> T:
    """Run an action in process 0, then in the others, which can read its files."""
    if count() == 1:
        return action()
    run_on_first(action)
    return action()


def broadcast_text(text: str) -> str:
    """Return the text of process 0 (at most 1,024 bytes of it)."""
    if count() == 1:
        return text
    content = np.zeros(_TEXT_BYTES, np.uint8)
    code = np.frombuffer(text.encode()[:_TEXT_BYTES], np.uint8)
    content[: len(code)] = code
    received = np.asarray(multihost_utils.broadcast_one_to_all(content))
    return received.tobytes().rstrip(b"\0").decode(errors="replace")


def all_equal(text: str) -> bool:
    """Return whether all processes pass the same text."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return all_true(broadcast_text(digest) == digest)


def all_true(value: bool) -> bool:
    """Return whether a value is true in every process."""
    if count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def is_key(x: Any) -> bool:
    """Return whether an array has typed PRNG keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _wrap(data: jax.Array, like: Any) -> jax.Array:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))


def gather_rows(tree: PyTree, *, axis: int = 0) -> PyTree:
    """Return the rows of all processes in their order, on every host.

    All arrays are sent as one array of bytes, in chunks, so their types do not change.

    Args:
      tree: arrays or keys with the same number of rows in each process.
      axis: that of the rows.
    """
    leaves, structure = jax.tree.flatten(tree)
    if count() == 1 or not leaves:
        return tree
    plain = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]
    plain = [np.ascontiguousarray(np.moveaxis(x, axis, 0)) for x in plain]
    sent = np.concatenate([x.reshape(len(x), -1).view(np.uint8) for x in plain], axis=1)
    width = max(1, _CHUNK_BYTES // len(sent))
    chunks = [sent[:, start : start + width] for start in range(0, sent.shape[1], width)]
    received = [np.asarray(multihost_utils.process_allgather(chunk)) for chunk in chunks]
    everyone = np.concatenate([x.reshape(-1, x.shape[-1]) for x in received], axis=1)
    gathered, start = [], 0
    for leaf, x in zip(leaves, plain, strict=True):
        end = start + x.nbytes // len(x)
        rows = np.ascontiguousarray(everyone[:, start:end]).view(x.dtype)
        rows, start = np.moveaxis(rows.reshape(-1, *x.shape[1:]), 0, axis), end
        gathered.append(_wrap(jnp.asarray(rows), leaf) if is_key(leaf) else rows)
    return jax.tree.unflatten(structure, gathered)


def local_rows(number: int) -> slice:
    """Return the block of this process if `number` rows are divided over the processes."""
    each = number // count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def replicate_global(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Return global arrays, with a copy on each device, of arrays that all processes have."""

    def replicate(x: jax.Array | np.ndarray) -> jax.Array:
        host = np.array(jax.random.key_data(x) if is_key(x) else x)
        array = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
        return _wrap(array, x) if is_key(x) else array

    return jax.tree.map(replicate, tree)


def local_copy(tree: PyTree) -> PyTree:
    """Return the copies of `replicate_global` arrays on this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def exit_if_peer_lost(error: Exception) -> None:
    """Exit immediately, with one line, if another process of the run is lost.

    A normal exit would wait for the lost process.
    """
    message = str(error)
    if count() == 1 or not any(word in message for word in _PEER_LOST):
        return
    sys.stderr.write(
        f"kdjax: process {jax.process_index()}: another process is gone or cannot be reached "
        f"({message.splitlines()[0][:160]}); start all of them again: the same command "
        "resumes from the last checkpoint\n"
    )
    sys.stderr.flush()
    os._exit(1)


def preempted() -> bool:
    """Return whether all processes stop after this step because one of them received a signal.

    All processes call it after the same steps, and the same call is the first to return True in
    all of them; later calls do so, too. The handler that `jax.distributed.initialize` installs
    receives SIGTERM.
    """
    if _is_preempted.is_set():
        return True
    reached = multihost_utils.reached_preemption_sync_point(next(_sync_points))
    if reached:
        _is_preempted.set()
    return reached
