"""Digests of data, with which a resumed run checks that its data has not changed."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


def digest(parts: Mapping[str, np.ndarray | Iterable[str]]) -> dict[str, str]:
    """Return the type, the size and a hash of the content of each array or list of texts.

    >>> digest({"labels": np.arange(3, dtype=np.int32), "names": ["a", "b"]})
    {'labels': 'int32 [3] ad5dc1478de06a4c', 'names': '2 lines 59b271ae1bbcb1d3'}
    """
    return {name: _describe(part) for name, part in parts.items()}


def lines_of_files(files: Iterable[Path]) -> list[str]:
    """Return the `file_lines` of files relative to the folder that they have in common."""
    files = list(files)
    return file_lines(Path(os.path.commonpath([file.parent for file in files])), files)


def file_lines(folder: Path, files: Iterable[Path]) -> list[str]:
    """Return a line for each file: its path relative to `folder` and its size in bytes."""
    return [f"{file.relative_to(folder).as_posix()} {_size(file)}" for file in files]


def _describe(part: np.ndarray | Iterable[str]) -> str:
    if isinstance(part, np.ndarray):
        array = np.ascontiguousarray(part)
        return f"{array.dtype} {list(array.shape)} {_hash(array.reshape(-1).view(np.uint8).data)}"
    lines = list(part)
    content = "\0".join(lines).encode("utf-8", "surrogateescape")
    return f"{len(lines)} lines {_hash(content)}"


def _hash(content: memoryview | bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a broken link
        return -1
