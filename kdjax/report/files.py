"""Files of workdirs, exports and reports: on a disk, or objects of a bucket (gs://).

An object is written by one upload, which is atomic. It cannot be appended to, see `staging`.
"""

import errno
import functools
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from kdjax.errors import UserError

if TYPE_CHECKING:
    from etils import epath

    Path: TypeAlias = pathlib.Path | epath.Path
else:
    Path = pathlib.PurePath  # of both; epath's import takes as long as the rest of `--help`

LocalPath: TypeAlias = pathlib.Path

STALL_SECONDS = 60.0  # without a byte, after which a request to a bucket is tried again
SCHEME = "gs://"
_OTHER_SCHEMES = ("s3:", "az:", "http:", "https:")


def as_path(text: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder, or of an address gs://bucket/path."""
    if isinstance(text, Path):
        return text
    if not is_remote(text):
        return pathlib.Path(os.path.expanduser(text))
    from etils import epath

    _configure()
    return epath.Path(text)


def is_remote(path: object) -> bool:
    """Return whether a path is an address in a bucket."""
    return str(path).startswith(SCHEME)


def check_access(path: object) -> None:
    """Refuse an address of another kind, and a bucket that cannot be listed.

    Raises:
      UserError: the bucket is missing, or forbidden; no credentials; gcsfs is not installed.
    """
    if isinstance(path, pathlib.Path) and path.parts[:1] and path.parts[0] in _OTHER_SCHEMES:
        raise UserError(f"{path} is an address; use a folder, or a bucket as gs://bucket/path")
    if not is_remote(path):
        return
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{path} is in a bucket, which needs gcsfs: pip install 'kdjax[gcs]'")
    bucket = str(path).removeprefix(SCHEME).partition("/")[0]
    try:
        filesystem().call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no bucket {bucket}") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from error


def reason(error: Exception) -> str:
    """Return the reason of an error of a file or a bucket in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raise an error of a bucket's client as an OSError, as a disk would."""
    try:
        yield
    except Exception as error:
        if not is_remote(path) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
        raise OSError(number, reason(error), str(path)) from error


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder."""
    with as_os_error(path):
        return path.exists()


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    with as_os_error(path):
        stat = path.stat()
        return int(stat.st_size if isinstance(stat, os.stat_result) else stat.length)


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a pattern without `**`, sorted."""
    with as_os_error(folder):
        return sorted(as_path(path) for path in folder.glob(pattern))


def read_bytes(path: Path) -> bytes:
    """Read a file."""
    with as_os_error(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text."""
    return read_bytes(path).decode("utf-8")


def write_bytes(path: Path, content: bytes, *, atomic: bool = True) -> None:
    """Write a file, and create its folders; not atomic means into the existing file."""
    with as_os_error(path):
        if is_remote(path):
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part") if atomic else path
        part.write_bytes(content)
        if atomic:
            os.replace(part, path)


def write_text(path: Path, text: str, *, atomic: bool = True) -> None:
    """Write a file of UTF-8 text, as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), atomic=atomic)


def remove(path: Path) -> None:
    """Remove a file."""
    with as_os_error(path):
        path.unlink()


def name_of(folder: Path) -> str:
    """Return the name of a folder, also of "."."""
    return folder.resolve().name if isinstance(folder, pathlib.Path) else folder.name


def make_folder(folder: Path) -> None:
    """Create a folder in which files can be written; a bucket has none.

    Raises:
      OSError: it cannot be created or written.
    """
    if is_remote(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


@functools.cache
def filesystem() -> Any:
    """Return gcsfs's client."""
    import fsspec

    _configure()
    return fsspec.filesystem("gs")


@functools.cache
def _configure() -> None:
    """Choose the clients of buckets, end requests that stall, and see what others have written."""
    os.environ.setdefault("EPATH_USE_TF", "false")  # gcsfs, also where TensorFlow is installed
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(int(STALL_SECONDS)))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    if importlib.util.find_spec("gcsfs") is None:
        return
    import aiohttp
    import fsspec.config

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS)
    defaults = {"use_listings_cache": False, "requests_timeout": timeout}
    for protocol in ("gs", "gcs"):
        fsspec.config.conf[protocol] = {**defaults, **fsspec.config.conf.get(protocol, {})}
