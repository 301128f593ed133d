"""Checkpoints: one state, whole and verified, through orbax.

A checkpoint holds the trained part of a State (frozen roles are named by path and hash
instead), and a small record: the step, the byte offset of the metrics file, a digest of all
arrays, and what the run was. A checkpoint whose arrays do not match the digest is set aside and
the one before is taken.
"""

import errno
import gc
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.train import multihost
from kdjax.types import PyTree, RunError, State, UserError

Say = Callable[[str], None]
SEALS = "seals"  # a folder beside the checkpoints
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # what an admin mends


def digest(tree: PyTree) -> str:
    """A hash of names, shapes, types and bytes of all arrays of a tree."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(jax.device_get(leaf))
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def describe(tree: PyTree) -> dict[str, str]:
    """Name -> "float32 (3, 4)" of all arrays of a tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{x.dtype} {tuple(x.shape)}" for path, x in leaves}


def open_manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    """Open (and create) a folder of checkpoints, of which the newest `keep` stay."""
    logging.getLogger("absl").addFilter(_not_orbax)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(folder.resolve(), options=options)


def _not_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs the traceback of what fails in each of its threads, and then raises it as well."""
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def save(
    manager: ocp.CheckpointManager, state: State, trains: tuple[str, ...], record: Mapping[str, Any]
) -> None:
    """Write the trained part of a state; the files are written while training goes on.

    Raises:
      RunError: this checkpoint, or the one before, cannot be written.
    """
    part = trained_part(state, trains)
    step = int(state.step)
    if step in manager.all_steps():
        return
    seal(manager)
    said = {**record, "step": step, "digest": digest(part), "arrays": describe(part)}
    if multihost.count() > 1:  # orbax writes arrays that all processes share, each a part
        part = multihost.everywhere(part, _copies())
    with _writing(manager):
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(part), record=ocp.args.JsonSave(said)
            ),
        )


def _copies() -> NamedSharding:
    """A copy on one device of each process."""
    mesh = Mesh(np.array(multihost.devices(multihost.count())), ("process",))
    return NamedSharding(mesh, PartitionSpec())


@contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Tell in one line that a checkpoint cannot be written, whatever orbax says of it."""
    try:
        yield
    except Exception as error:
        said = str(error).split("\n")[0]
        why = next((os.strerror(n) for n in FULL if os.strerror(n) in said), said[-200:])
        raise RunError(
            f"a checkpoint below {manager.directory} cannot be written ({why}); those before are "
            "whole: make room, and the same command goes on from the newest"
        ) from error


def close(manager: ocp.CheckpointManager) -> None:
    """Finish what is being written, and let go of the folder.

    Raises:
      RunError: it cannot be written.
    """
    try:
        seal(manager)
    finally:
        with _writing(manager):
            manager.close()


def seal(manager: ocp.CheckpointManager) -> None:
    """Wait for what is being written, and note size and hash of every file of each checkpoint.

    Damage is then seen without reading the arrays: a reader that meets a truncated file prints
    tracebacks from threads of its own, at any later time.

    Raises:
      RunError: what was being written could not be.
    """
    with _writing(manager):
        _seal(manager)


def _seal(manager: ocp.CheckpointManager) -> None:
    manager.wait_until_finished()
    if not multihost.is_first():
        return
    folder = Path(manager.directory)
    seals = folder / SEALS
    seals.mkdir(exist_ok=True)
    steps = set(manager.all_steps())
    for step in steps:
        target = seals / f"{step}.json"
        if not target.exists():
            part = target.with_suffix(".part")
            part.write_text(json.dumps(_files(folder / str(step))))
            part.rename(target)
    for old in seals.glob("*.json"):
        if int(old.stem) not in steps:
            old.unlink()


def _files(folder: Path) -> dict[str, list]:
    """Size and hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): [
            path.stat().st_size,
            hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _broken_seal(folder: Path, step: int) -> str | None:
    """What is wrong with the files of a checkpoint; None if nothing is, or nothing is known."""
    try:
        noted = json.loads((folder / SEALS / f"{step}.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    found = _files(folder / str(step))
    for name in sorted({*noted, *found}):
        if name not in found:
            return f"its file {name} is missing"
        if noted.get(name) != found[name]:
            return f"its file {name} has changed since it was written"
    return None


def restore(
    manager: ocp.CheckpointManager, state: State, trains: tuple[str, ...], say: Say
) -> tuple[State, dict[str, Any]] | None:
    """Read the newest good checkpoint into a state of the same shapes; None if there is none.

    Raises:
      UserError: a checkpoint of other roles, networks or numbers of members.
    """
    wanted = trained_part(state, trains)
    for step in sorted(manager.all_steps(), reverse=True):
        folder = Path(manager.directory)
        broken = multihost.told((multihost.is_first() and _broken_seal(folder, step)) or "")
        if broken:  # seen before orbax opens it
            _set_aside(manager, step, say, broken)
            continue
        try:
            part, record = _read(manager, step, wanted)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  a damaged file may fail in any way
            why = str(error).split("\n")[0][:200]
            multihost.all_true(False)
        else:
            why = "" if digest(part) == record["digest"] else "its arrays differ from their digest"
            if multihost.all_true(not why):
                return merge(state, part), record
            why = why or "another process cannot read it"
        _forget_reads()
        _set_aside(manager, step, say, why)
    return None


def _forget_reads() -> None:
    """Collect orbax's abandoned reads; at any later time they would print their errors."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _read(manager: ocp.CheckpointManager, step: int, wanted: PyTree):
    record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))
    arrays = record["record"]["arrays"]
    _check_arrays(Path(manager.directory) / str(step), arrays, wanted)
    template = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
    found = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template)))
    return found["state"], record["record"]


def _check_arrays(folder: Path, found: Mapping[str, str], wanted: PyTree) -> None:
    """Refuse a checkpoint of something else, which is no damage."""
    expected = describe(wanted)
    # networks first: they say more than their optimizers
    for name in sorted({*found, *expected}, key=lambda n: (not n.startswith(".params"), n)):
        there, here = found.get(name, "absent"), expected.get(name, "absent")
        if there != here:
            raise UserError(
                f"checkpoint {folder} belongs to another run: {name.lstrip('.')} is {there} there "
                f"and {here} here; name another workdir"
            )


def _set_aside(manager: ocp.CheckpointManager, step: int, say: Say, why: str) -> None:
    """Rename a damaged checkpoint, so that nothing is lost and its step can be written again."""
    folder = Path(manager.directory) / str(step)

    def rename() -> None:
        aside = folder.with_name(f"damaged-{step}")
        for number in range(1, 1000):
            if not aside.exists():
                break
            aside = folder.with_name(f"damaged-{step}-{number}")
        folder.rename(aside)
        (folder.parent / SEALS / f"{step}.json").unlink(missing_ok=True)
        say(f"checkpoint {folder} is damaged ({why}); kept as {aside.name}, trying the one before")

    multihost.by_first(rename)
    manager.reload()


def trained_part(state: State, trains: tuple[str, ...]) -> State:
    """The state without its frozen roles, which a checkpoint names by path and hash instead."""
    part = lambda tree: {role: tree[role] for role in trains}  # noqa: E731
    return state._replace(params=part(state.params), stats=part(state.stats))


def merge(state: State, part: State) -> State:
    """Put a trained part back beside the frozen roles of `state`."""
    return part._replace(
        params={**state.params, **part.params}, stats={**state.stats, **part.stats}
    )
