"""Digests of data, with which a resumed run checks that its data has not changed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath

import numpy as np


def digest(parts: Mapping[str, np.ndarray | Iterable[str]]) -> dict[str, str]:
    """Return the type, the size and a hash of the content of each array or list of texts.

    >>> digest({"labels": np.arange(3, dtype=np.int32), "names": ["a", "b"]})
    {'labels': 'int32 [3] ad5dc1478de06a4c', 'names': '2 lines 59b271ae1bbcb1d3'}
    """
    return {name: _describe(part) for name, part in parts.items()}


def lines_of_files(
    files: Sequence[PurePath], size: Callable[[PurePath], int] | None = None
) -> list[str]:
    """Return the `file_lines` of files relative to the folder that they have in common."""
    folder = os.path.commonpath([file.parent for file in files])
    return file_lines(PurePath(folder), files, size)


def file_lines(
    folder: PurePath, files: Iterable[PurePath], size: Callable[[PurePath], int] | None = None
) -> list[str]:
    """Return a line for each file: its path relative to `folder` and its size in bytes.

    `size` returns the size of a file that is not on a disk.
    """
    size = size or _size
    return [f"{file.relative_to(folder).as_posix()} {size(file)}" for file in files]


def _describe(part: np.ndarray | Iterable[str]) -> str:
    if isinstance(part, np.ndarray):
        array = np.ascontiguousarray(part)
        return f"{array.dtype} {list(array.shape)} {_hash(array.reshape(-1).view(np.uint8).data)}"
    lines = list(part)
    content = "\0".join(lines).encode("utf-8", "surrogateescape")
    return f"{len(lines)} lines {_hash(content)}"


def _hash(content: memoryview | bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _size(file: PurePath) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # a broken link
        return -1
