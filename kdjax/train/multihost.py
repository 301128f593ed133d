"""One run in several processes: writing by process 0, shared values, and gathered rows.

Every process runs the same program with the same config, and calls the functions below in the same
order, because most of them wait for the others. Only process 0 writes files and logs; all processes
write checkpoints. With one process no function communicates.
"""

import hashlib
import os
import sys
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


def gather_rows(tree: PyTree, *, axis: int = 0) -> PyTree:
    """Return the rows of all processes in their order, on every host.

    Args:
      tree: numpy arrays with the same number of rows in each process.
      axis: that of the rows.
    """
    if count() == 1:
        return tree
    gathered = multihost_utils.process_allgather(tree)
    return jax.tree.map(lambda x: np.concatenate(list(np.asarray(x)), axis=axis), gathered)


def replicate_global(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Return global arrays, with a copy on each device, of arrays that all processes have."""

    def replicate(x: jax.Array | np.ndarray) -> jax.Array:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        host = np.array(jax.random.key_data(x) if is_key else x)
        array = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(x)) if is_key else array

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


def preempted(step: int) -> bool:
    """Return whether all processes stop after this step because one of them received a signal.

    The result is the same in all processes at the same step. The handler that
    `jax.distributed.initialize` installs receives SIGTERM.
    """
    return multihost_utils.reached_preemption_sync_point(step)
