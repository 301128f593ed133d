"""Storage of .tar shards: files on a disk, or objects of a bucket, read by ranges of bytes."""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO, TypeAlias

from kdjax.data import user_cache
from kdjax.data.images.readers import is_hidden
from kdjax.data.split_files import find_split_files, split_files
from kdjax.errors import RunError, UserError

SUFFIX = ".tar"
EXPECTED = "a folder of .tar shards: train-*.tar and perhaps val-*.tar, test-*.tar"
_OPEN_FILES = 128  # shards that a process holds open
_BLOCK = 2**23  # bytes that are fetched at a time while a shard is indexed
_SCHEME = "gs://"
_FORMAT = 1  # of stored indices

Stamp = tuple[int, int, int]  # size, time of the last change and inode of a file
Splits = Mapping[str, Sequence[PurePath]]  # split -> its shards


class Disk:
    """Shards on a disk."""

    threads = 4  # that read, in each process

    def __init__(self, path: str | None) -> None:
        """Use a shard or a folder of shards."""
        self._path = path
        self._stamps: dict[str, Stamp] = {}
        self.root = Path(path or "").expanduser()

    def find(self) -> Splits:
        """Return the shards of each split; see `find_split_files`."""
        return find_split_files(self._path, (SUFFIX,), EXPECTED)

    def size(self, file: PurePath) -> int:
        """Return the size of a shard in bytes."""
        return os.stat(file).st_size

    def open(self, file: PurePath) -> BinaryIO:
        """Open a shard, to be read from its start to its end; `read` reads this content."""
        shard = Path(file).open("rb")  # noqa: SIM115 - the caller closes it
        self._stamps[str(file)] = _stamp(shard)
        return shard

    def read(self, file: str, offset: int, size: int) -> bytes:
        """Return a part of a shard; needs no lock between threads.

        Raises:
            RunError: the shard has changed.
        """
        shard = _open(file, self._stamps[file])  # stays open while it has a name
        return os.pread(shard.fileno(), size, offset)

    def read_text(self, file: PurePath) -> str | None:
        """Return the text of a file; None: there is no such file."""
        return Path(file).read_text(encoding="utf-8") if os.path.isfile(file) else None

    def index_file(self, file: PurePath, layout: Sequence[str]) -> Path | None:
        """Return where the index of a shard is stored; None: it is not."""
        del file, layout


class Bucket:
    """Shards in a bucket, gs://BUCKET/PATH; their paths are BUCKET/PATH.

    Processes and threads share nothing but the client's settings, so it may be pickled. In a run
    these are the timeouts that `report.files` has set in fsspec.
    """

    threads = 16  # most of the time of a read is waiting

    def __init__(self, path: str) -> None:
        """List the objects.

        Raises:
            UserError: gcsfs is not installed, or the bucket cannot be read.
        """
        try:
            import fsspec

            self._path = path
            self._client = fsspec.filesystem("gs", version_aware=True)
            self._objects = self._client.find(path.rstrip("/"), detail=True)
        except ImportError as error:
            raise UserError(
                f"data.path={path} is in a bucket, which needs gcsfs: pip install 'kdjax[gcs]'"
            ) from error
        except Exception as error:
            raise UserError(f"data.path={path} cannot be read ({_reason(error)})") from error
        self.root = PurePosixPath(path.removeprefix(_SCHEME))

    def find(self) -> Splits:
        """Return the shards of each split; see `find_split_files`."""
        if not self._objects:
            raise UserError(f"data.path={self._path} does not exist; give {EXPECTED}")
        if [*self._objects] == [str(self.root)]:
            return {"train": (self.root,)}
        paths = sorted(map(PurePosixPath, self._objects))
        files = [p for p in paths if not any(map(is_hidden, p.relative_to(self.root).parts))]
        return split_files(self.root, files, self._path, (SUFFIX,), EXPECTED)

    def size(self, file: PurePath) -> int:
        """Return the size of a shard in bytes."""
        return int(self._objects[str(file)]["size"])

    def open(self, file: PurePath) -> BinaryIO:
        """Open a shard, to be read from its start to its end; `read` reads this content."""
        return io.BufferedReader(_Stream(self, file), _BLOCK)

    def read(self, file: str, offset: int, size: int) -> bytes:
        """Return a part of a shard.

        Raises:
            RunError: the bucket cannot be read, after the client's repetitions; the shard has
                changed.
        """
        if not size:
            return b""
        version = f"{file}#{self._objects[file]['generation']}"
        try:
            content = self._client.cat_file(version, start=offset, end=offset + size)
        except FileNotFoundError as error:
            raise RunError(_changed(f"{_SCHEME}{file}")) from error
        except Exception as error:
            raise RunError(_unreadable(file, _reason(error))) from error
        if len(content) != size:
            raise RunError(_unreadable(file, f"{len(content)} of {size} bytes at {offset}"))
        return content

    def read_text(self, file: PurePath) -> str | None:
        """Return the text of a file; None: there is no such file."""
        name = str(file)
        return self.read(name, 0, self.size(file)).decode() if name in self._objects else None

    def index_file(self, file: PurePath, layout: Sequence[str]) -> Path | None:
        """Return where the index of a shard is stored: in the user's cache, by its generation."""
        key = json.dumps([_FORMAT, str(file), self._objects[str(file)]["generation"], *layout])
        return user_cache.folder("shards") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


class _Stream(io.RawIOBase):
    """A shard in a bucket as a file."""

    def __init__(self, bucket: Bucket, file: PurePath) -> None:
        self._bucket, self._file, self._size, self._position = bucket, file, bucket.size(file), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        buffer[:size] = self._bucket.read(str(self._file), self._position, size)
        self._position += size
        return size


Storage: TypeAlias = Disk | Bucket


def storage_of(path: str | None) -> Storage:
    """Return the storage of `data.path`."""
    return Bucket(path) if path is not None and path.startswith(_SCHEME) else Disk(path)


def _unreadable(file: str, reason: str) -> str:
    return (
        f"{_SCHEME}{file} cannot be read ({reason}); run the same command again to resume from the "
        "newest checkpoint"
    )


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _changed(file: str) -> str:
    return f"{file} was changed or removed since this process began; start the command again"


@lru_cache(maxsize=_OPEN_FILES)
def _open(file: str, stamp: Stamp) -> BinaryIO:
    shard = Path(file).open("rb", buffering=0)  # noqa: SIM115 - the cache keeps it open
    if _stamp(shard) != stamp:
        raise RunError(_changed(file))
    return shard


def _stamp(file: BinaryIO) -> Stamp:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
