"""Checkpoints: one complete, verified state, through orbax.

A checkpoint has the trained part of a State (frozen roles are recorded by path and hash instead)
and a small record: the step, the byte offset of the metrics file, a digest of all arrays, and
entries of the caller. A checkpoint whose arrays do not match the digest is quarantined, and the
previous one is read.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.options import FileOptions

from kdjax.errors import RunError, UserError
from kdjax.train import multihost
from kdjax.types import PyTree, State

Say = Callable[[str], None]
HASHES = "seals"  # a folder next to the checkpoints
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def digest(tree: PyTree) -> str:
    """Hash the names, shapes, types and bytes of all arrays of a tree."""
    total = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(jax.device_get(leaf))
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def describe(tree: PyTree) -> dict[str, str]:
    """Return name -> "float32 (3, 4)" of all arrays of a tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{x.dtype} {tuple(x.shape)}" for path, x in leaves}


def open_manager(
    folder: Path | epath.Path, *, keep: int, before_commit: Callable[[], None] | None = None
) -> ocp.CheckpointManager:
    """Open or create a folder of checkpoints, on a disk or in a bucket.

    Args:
      folder: the folder.
      keep: the number of newest checkpoints to keep.
      before_commit: called in process 0 when the arrays of a checkpoint are written, in the thread
        that then commits it.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=True,
        enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=before_commit),
        # in a bucket the thread that writes also looks for an old folder of this name
        file_options=FileOptions(skip_sync_file_validations=_in_bucket(folder)),
    )
    place = folder.resolve() if isinstance(folder, Path) else folder
    return ocp.CheckpointManager(place, options=options)


def _in_bucket(folder: PurePath) -> bool:
    return str(folder).startswith("gs://")


def save(
    manager: ocp.CheckpointManager,
    state: State,
    trains: tuple[str, ...],
    record: Mapping[str, Any],
    *,
    number: int | None = None,
) -> None:
    """Write the trained part of a state; training continues during the write.

    Args:
      manager: of the folder; it keeps the highest numbers.
      state: the state.
      trains: the roles that train.
      record: further entries of the record.
      number: of the checkpoint, by default the step; one that exists is not written again.

    Raises:
      RunError: this checkpoint or the previous one cannot be written.
    """
    part = trained_part(state, trains)
    step = int(state.step)
    number = step if number is None else number
    if number in manager.all_steps():
        return
    write_file_hashes(manager)
    record = {**record, "step": step, "digest": digest(part), "arrays": describe(part)}
    if multihost.count() > 1:  # orbax writes global arrays; each process writes a part
        part = multihost.replicate_global(part, _one_copy_a_process())
    with _writing(manager):
        manager.save(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(part), record=ocp.args.JsonSave(record)
            ),
        )


def _one_copy_a_process() -> NamedSharding:
    mesh = Mesh(np.array(multihost.devices(multihost.count())), ("process",))
    return NamedSharding(mesh, PartitionSpec())


@contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turn any error of orbax into one line that names the folder."""
    try:
        yield
    except Exception as error:
        line = str(error).split("\n")[0]
        reason = next((os.strerror(n) for n in FULL if os.strerror(n) in line), line[-200:])
        raise RunError(
            f"a checkpoint below {manager.directory} cannot be written ({reason}); earlier "
            "ones are complete: free space, then run the same command again to resume"
        ) from error


def close(manager: ocp.CheckpointManager) -> None:
    """Finish the checkpoint that is being written, and close the manager.

    Raises:
      RunError: it cannot be written.
    """
    try:
        write_file_hashes(manager)
    finally:
        with _writing(manager):
            manager.close()


def write_file_hashes(manager: ocp.CheckpointManager) -> None:
    """Wait for the checkpoint being written, and write size and hash of every checkpoint's files.

    Damage is then detected without reading the arrays: orbax's reader of a truncated file prints
    tracebacks from other threads at any later time. A bucket keeps hashes of its own.

    Raises:
      RunError: the checkpoint could not be written.
    """
    with _writing(manager):
        manager.wait_until_finished()
        if not multihost.is_first() or _in_bucket(manager.directory):
            return
        folder = Path(manager.directory)
        hashes = folder / HASHES
        hashes.mkdir(exist_ok=True)
        steps = set(manager.all_steps())
        for step in steps:
            target = hashes / f"{step}.json"
            if not target.exists():
                part = target.with_suffix(".part")
                part.write_text(json.dumps(_file_hashes(folder / str(step))))
                part.rename(target)
        for old in hashes.glob("*.json"):
            if int(old.stem) not in steps:
                old.unlink()


def _file_hashes(folder: Path) -> dict[str, list]:
    """Return size and hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): [
            path.stat().st_size,
            hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _changed_file(folder: epath.Path, step: int) -> str | None:
    """Describe a file of a checkpoint that differs from its hash; None if no file differs."""
    if _in_bucket(folder):
        return None
    try:
        expected = json.loads((folder / HASHES / f"{step}.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    actual = _file_hashes(Path(folder / str(step)))
    for name in sorted({*expected, *actual}):
        if name not in actual:
            return f"its file {name} is missing"
        if expected.get(name) != actual[name]:
            return f"its file {name} has changed since it was written"
    return None


def restore(
    manager: ocp.CheckpointManager, state: State, trains: tuple[str, ...], say: Say
) -> tuple[State, dict[str, Any]] | None:
    """Read the newest valid checkpoint into a state of the same shapes; None if there is none.

    Raises:
      UserError: a checkpoint of other roles, networks or numbers of members.
    """
    template = trained_part(state, trains)
    for step in sorted(manager.all_steps(), reverse=True):
        folder = manager.directory
        changed = multihost.broadcast_text(
            (multihost.is_first() and _changed_file(folder, step)) or ""
        )
        if changed:  # detected before orbax opens it
            quarantine(manager, step, say, changed)
            continue
        try:
            part, record = _read(manager, step, template)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  a damaged file may fail in any way
            reason = str(error).split("\n")[0][:200]
            multihost.all_true(False)
        else:
            same = digest(part) == record["digest"]
            reason = "" if same else "its arrays differ from their digest"
            if multihost.all_true(same):
                return merge(state, part), record
            reason = reason or "another process cannot read it"
        quarantine(manager, step, say, reason)
    return None


def _read(manager: ocp.CheckpointManager, step: int, template: PyTree):
    args = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = manager.restore(step, args=args)["record"]
    _check_arrays(manager.directory / str(step), record["arrays"], template)
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
    return manager.restore(step, args=args)["state"], record


def _check_arrays(folder: PurePath, stored: Mapping[str, str], template: PyTree) -> None:
    """Raise an error for the checkpoint of another run, which is not damaged."""
    expected = describe(template)
    # networks first: they are more informative than their optimizers
    for name in sorted({*stored, *expected}, key=lambda n: (not n.startswith(".params"), n)):
        there, here = stored.get(name, "absent"), expected.get(name, "absent")
        if there != here:
            raise UserError(
                f"checkpoint {folder} belongs to another run: {name.lstrip('.')} is {there} there "
                f"and {here} here; name another workdir"
            )


def quarantine(manager: ocp.CheckpointManager, step: int, say: Say, reason: str) -> None:
    """Rename a damaged checkpoint, so that nothing is lost and its step can be written again."""
    folder = manager.directory / str(step)

    def rename() -> None:
        target = folder.with_name(f"damaged-{step}")
        for number in range(1, 1000):
            if not target.exists():
                break
            target = folder.with_name(f"damaged-{step}-{number}")
        folder.rename(target)
        (folder.parent / HASHES / f"{step}.json").unlink(missing_ok=True)
        say(
            f"checkpoint {folder} is damaged ({reason}); kept as {target.name}, trying the one "
            "before"
        )

    multihost.run_on_first(rename)
    manager.reload()


def trained_part(state: State, trains: tuple[str, ...]) -> State:
    """Return the state without its frozen roles, which a checkpoint records by path and hash."""
    params = {role: state.params[role] for role in trains}
    return state._replace(params=params, stats={role: state.stats[role] for role in trains})


def merge(state: State, part: State) -> State:
    """Add the frozen roles of `state` to a trained part."""
    return part._replace(
        params={**state.params, **part.params}, stats={**state.stats, **part.stats}
    )
