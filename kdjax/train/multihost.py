"""Several processes, one run: who writes, what all agree upon, what each holds.

Every process runs the same program with the same config, and calls everything below in the same
order: most of it waits for the others. The first process alone writes files and talks; all write
checkpoints. With one process nothing here communicates.
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

from kdjax.types import PyTree, RunError, UserError

T = TypeVar("T")
# What collectives and barriers say when a process does not answer.
_GONE = ("Gloo", "gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "NCCL", "preempted")
_TEXT = 1024  # bytes of a line that travels between processes


def count() -> int:
    """How many processes this run has."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this process writes and talks."""
    return jax.process_index() == 0


def devices(number: int) -> list[Any]:
    """`number` devices, as many of each process, those of a process beside each other.

    So the rows of a batch that a process reads are those that its devices hold.

    Args:
      number: a multiple of the number of processes.
    """
    if count() == 1:
        return jax.devices()[:number]
    each = number // count()
    own = [[d for d in jax.devices() if d.process_index == p] for p in range(count())]
    return [device for found in own for device in found[:each]]


def local_devices(number: int) -> list[Any]:
    """Those of `devices(number)` that belong to this process."""
    return [d for d in devices(number) if d.process_index == jax.process_index()]


def by_first(deed: Callable[[], object]) -> None:
    """Let the first process do something while the others wait.

    Raises:
      UserError, RunError: what the deed raised, in every process.
    """
    if count() == 1:
        deed()
        return
    caught: UserError | RunError | None = None
    if is_first():
        try:
            deed()
        except (UserError, RunError) as error:
            caught = error
    kind = {None: "", UserError: "user ", RunError: "run "}
    said = told(kind.get(type(caught), "run ") + str(caught) if caught else "")
    if caught is not None:
        raise caught
    if said:
        mistake, text = said.startswith("user "), said.partition(" ")[2]
        raise UserError(text) if mistake else RunError(text)


def first_then_all(deed: Callable[[], T]) -> T:
    """Do something in the first process, then in the others, which find its files."""
    if count() == 1:
        return deed()
    by_first(deed)
    return deed()


def told(text: str) -> str:
    """What the first process says (at most 1,024 bytes of it)."""
    if count() == 1:
        return text
    content = np.zeros(_TEXT, np.uint8)
    code = np.frombuffer(text.encode()[:_TEXT], np.uint8)
    content[: len(code)] = code
    heard = np.asarray(multihost_utils.broadcast_one_to_all(content))
    return heard.tobytes().rstrip(b"\0").decode(errors="replace")


def agreed(number: int) -> int:
    """The number of the first process."""
    return int(told(str(number)))


def alike(text: str) -> bool:
    """Whether all processes say the same, and so may go on together."""
    mine = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return all_true(told(mine) == mine)


def all_true(mine: bool) -> bool:
    """Whether something holds in every process."""
    if count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))


def whole(tree: PyTree, *, axis: int = 0) -> PyTree:
    """Rows of all processes, in the order of the processes, on the host of each.

    Args:
      tree: numpy arrays, as many rows in each process.
      axis: that of the rows.
    """
    if count() == 1:
        return tree
    found = multihost_utils.process_allgather(tree)
    return jax.tree.map(lambda x: np.concatenate(list(np.asarray(x)), axis=axis), found)


def everywhere(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process holds alike as global ones, a copy on each device."""

    def spread(x: jax.Array | np.ndarray) -> jax.Array:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        host = np.array(jax.random.key_data(x) if is_key else x)
        found = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
        return jax.random.wrap_key_data(found, impl=jax.random.key_impl(x)) if is_key else found

    return jax.tree.map(spread, tree)


def own_copy(tree: PyTree) -> PyTree:
    """The copies of `everywhere` arrays on this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def leave_if_alone(error: Exception) -> None:
    """End this process at once, with a line, if another one of the run is gone.

    Everything else, the usual end of a process included, would wait for it.
    """
    said = str(error)
    if count() == 1 or not any(word in said for word in _GONE):
        return
    sys.stderr.write(
        f"kdjax: process {jax.process_index()}: another process is gone or cannot be reached "
        f"({said.splitlines()[0][:160]}); start all of them again: the same command goes on from "
        "the last checkpoint\n"
    )
    sys.stderr.flush()
    os._exit(1)


def preempted(step: int) -> bool:
    """Whether all shall stop after this step, because one of them was asked to end.

    The answer is the same in all processes at the same step; a process learns of SIGTERM through
    the handler that `jax.distributed.initialize` has set.
    """
    return multihost_utils.reached_preemption_sync_point(step)
