"""Local copies of what is in a bucket: files that are appended to, exports, data.

A path on a disk is used as it is.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kdjax.errors import RunError, UserError
from kdjax.report import files


class Staged:
    """Files of a workdir that are appended to, in a local folder.

    On a disk this is the workdir itself. For a bucket it is a temporary folder, which begins with
    the objects of the bucket; `upload` writes what has changed.
    """

    def __init__(self, workdir: files.Path, names: Sequence[str]) -> None:
        """Download the files and folders with these names, if the workdir is in a bucket."""
        self._remote = str(workdir) if files.is_remote(workdir) else None
        self._uploaded: dict[pathlib.Path, tuple[int, int]] = {}
        if self._remote is None:
            self.folder = pathlib.Path(workdir)
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="kdjax-")
        self.folder = pathlib.Path(self._scratch.name)
        with files.as_os_error(workdir):
            _download(self._remote, self.folder, names)
        self._uploaded = self._states()

    def _states(self) -> dict[pathlib.Path, tuple[int, int]]:
        """Return size and time of every file."""
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        stats = {path: path.stat() for path in paths}
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

    def upload(self) -> None:
        """Write the files that have changed to the bucket; nothing on a disk.

        Raises:
          RunError: the bucket cannot be written.
        """
        if self._remote is None:
            return
        states = self._states()
        contents = {}
        for path, state in states.items():
            if self._uploaded.get(path) != state:
                with path.open("rb") as file:  # which may grow meanwhile
                    contents[self._address(path)] = file.read(state[0])
        try:
            if contents:
                files.filesystem().pipe(contents)
        except Exception as error:
            raise RunError(
                f"{self._remote} cannot be written ({files.reason(error)}); run the same command "
                "again to resume from the newest checkpoint"
            ) from error
        self._uploaded = states

    def _address(self, path: pathlib.Path) -> str:
        return f"{self._remote}/{path.relative_to(self.folder).as_posix()}"

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._remote is not None:
            self._scratch.cleanup()


@contextmanager
def local_folder(folder: files.Path) -> Iterator[pathlib.Path]:
    """Yield a local folder whose files are then uploaded; on a disk `folder` itself.

    config.json is the last one, so that an export in a bucket is complete if it has one.

    Raises:
      UserError: the bucket cannot be written.
    """
    if isinstance(folder, pathlib.Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="kdjax-") as scratch:
        yield pathlib.Path(scratch)
        paths = [path for path in pathlib.Path(scratch).rglob("*") if path.is_file()]
        try:
            for path in sorted(paths, key=lambda path: path.name == "config.json"):
                place = folder / path.relative_to(scratch).as_posix()
                files.filesystem().put_file(str(path), str(place))
        except Exception as error:
            raise UserError(f"{folder} cannot be written ({files.reason(error)})") from error


def local_copy(path: str, folder: str = "", siblings: Sequence[str] = ()) -> str:
    """Return a local copy of a file or folder of a bucket; a local path itself.

    Copies are kept in the user's cache, by the generations of their objects: data that have changed
    are copied again.

    Args:
      path: of a file or a folder.
      folder: of a folder only this one below it is copied, if it is there.
      siblings: names of files that are copied with it, if they are in the same folder.

    Raises:
      UserError: no such object, or the bucket cannot be read.
    """
    if not files.is_remote(path):
        return path
    files.check_access(files.as_path(path))
    root, find = path.rstrip("/"), files.filesystem().find
    above = root.rpartition("/")[0]
    try:
        objects = folder and find(f"{root}/{folder}", detail=True)
        place = f"{root}/{folder}" if objects else root
        objects = objects or find(root, detail=True)
        for name in siblings if objects else ():
            objects |= find(f"{above}/{name}", detail=True)
        copy = _copy_of(root, objects)
        if objects and not copy.exists():
            _make_room(sum(item["size"] for item in objects.values()))
            with tempfile.TemporaryDirectory(prefix=".part-", dir=_cache()) as part:
                _download(above, pathlib.Path(part), [place.removeprefix(f"{above}/"), *siblings])
                if not copy.parent.exists():
                    pathlib.Path(part).rename(copy.parent)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read ({files.reason(error)})") from error
    if not objects:
        raise UserError(f"{path}: there is no such object or folder in the bucket")
    return str(copy)


def fits_on_disk(path: str) -> bool:
    """Return whether a folder of a bucket has a local copy, or would take half of the free disk.

    Raises:
      UserError: the bucket cannot be read.
    """
    files.check_access(files.as_path(path))
    root = path.rstrip("/")
    try:
        objects = files.filesystem().find(root, detail=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({files.reason(error)})") from error
    if _copy_of(root, objects).exists():
        return True
    _cache().mkdir(parents=True, exist_ok=True)
    return 2 * sum(item["size"] for item in objects.values()) <= shutil.disk_usage(_cache()).free


def _copy_of(root: str, objects: Mapping[str, Mapping[str, Any]]) -> pathlib.Path:
    """Return the path of the local copy of these generations of objects."""
    stamps = [f"{name} {item['generation']}" for name, item in sorted(objects.items())]
    key = hashlib.sha256("\n".join([root, *stamps]).encode()).hexdigest()[:24]
    return _cache() / key / root.rpartition("/")[2]


def _cache() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(home, "kdjax", "buckets")


def _make_room(size: int) -> None:
    """Create the folder of copies; refuse a copy for which the disk has no room."""
    _cache().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(_cache()).free
    if size > free:
        raise UserError(
            f"{size / 1e9:.1f} GB must be copied to {_cache()}, which has {free / 1e9:.1f} GB; "
            "let XDG_CACHE_HOME name a larger disk, or stream images as .tar shards"
        )


def _download(root: str, folder: pathlib.Path, names: Sequence[str]) -> None:
    """Copy the objects and folders `root/name` into a local folder."""
    keys = [key for name in names for key in files.filesystem().find(f"{root}/{name}")]
    remote = [key for key in keys if not key.endswith("/")]  # marks of empty folders
    start = len(root.removeprefix(files.SCHEME)) + 1
    local = [str(folder / key[start:]) for key in remote]
    if remote:
        files.filesystem().get(remote, local)
