"""Tensors from PyTorch's files (.pth, .pt, .th), without PyTorch and without running them.

Such a file is a program for Python's unpickler: reading it the usual way runs whatever it says.
Here its instructions are only looked at (`pickle_reader`), and the few results that describe
tensors are understood; a file that asks for anything else is refused, by the name it asks for.
Both containers are read: the zip archive (since PyTorch 1.6), whose numbers lie in files of their
own, and the older sequence of pickles, which the numbers follow.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.models.pickle_reader import Global, Record, read_pickle
from kdjax.types import UserError

__all__ = ["from_torch_file"]

# Numbers of the older container, as PyTorch writes them first.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# The largest description of a network, not of its numbers, that is looked at.
_MAX_PICKLE = 64 * 2**20
# Keys under which training scripts keep the weights, the likeliest first.
_USUAL = ("state_dict", "model", "net", "model_state_dict", "network", "student", "model_state")
# Storage -> the type of its numbers; bfloat16, which numpy lacks, is widened.
_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_GLOBALS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    *(("torch", storage) for storage in _TYPES),
}


class _Storage(NamedTuple):
    """Numbers in the file: `size` of them under `key`."""

    key: str
    kind: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage, not read yet; strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Fault(Exception):
    """What is wrong with a file, to be said after its name."""


def from_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict, or of the state dict in a training checkpoint.

    Among several state dicts the one under "state_dict", "model", "net", ... is taken. bfloat16
    comes back as float32, every other type as it is.

    Args:
      path: a file written by `torch.save` of a dict (not of a whole module).

    Returns:
      The tensors by PyTorch's names, in its layouts; give them to `load_torch`.

    Raises:
      UserError: the file is missing, damaged or no PyTorch file; it asks for an object other
        than tensors, or holds no state dict or several; one line says which.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(0)
            if head[:2] == b"PK":
                value, read = _open_zip(file)
            elif head[:1] == b"\x80":
                value, read = _open_legacy(file)
            else:
                raise _Fault("it is no PyTorch file: neither a zip archive nor a pickle")
            cached: dict[_Storage, np.ndarray] = {}
            tensors = _state_dict(value)
            return {name: _view(name, tensor, read, cached) for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a .pth, .pt or .th file") from None
    except _Fault as fault:
        raise UserError(f"{path}: {fault}") from None
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: cannot be read, the file may be damaged: {error}") from error


_Reader = Callable[[_Storage], bytes]


def _open_zip(file: Any) -> tuple[Any, _Reader]:
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    found = [name for name in members if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(found) != 1:
        raise _Fault("this zip archive is no PyTorch file: it has no data.pkl")
    prefix = found[0].removesuffix("data.pkl")
    for info in members.values():
        # PyTorch compresses nothing; so what is read is never more than the file is long.
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Fault(f"{info.filename} is compressed, which PyTorch never does")
    if members[found[0]].file_size > _MAX_PICKLE:
        raise _Fault(f"{found[0]} has {members[found[0]].file_size} bytes; at most {_MAX_PICKLE}")
    order = f"{prefix}byteorder"
    if order in members and archive.read(order) != b"little":
        raise _Fault("its numbers are big-endian; save it again on a usual machine")

    def read(storage: _Storage) -> bytes:
        name = f"{prefix}data/{storage.key}"
        if name not in members:
            raise _Fault(f"{name} is missing from the archive")
        return archive.read(name)

    return _describe(io.BytesIO(archive.read(found[0]))), read


def _open_legacy(file: Any) -> tuple[Any, _Reader]:
    length = os.fstat(file.fileno()).st_size
    if _describe(file) != _MAGIC:
        raise _Fault("it is a pickle, but not one of PyTorch")
    if (protocol := _describe(file)) != _PROTOCOL:
        raise _Fault(f"it is of PyTorch's format {protocol}; {_PROTOCOL} is known")
    system = _describe(file)
    if isinstance(system, Mapping) and system.get("little_endian") is False:
        raise _Fault("its numbers are big-endian; save it again on a usual machine")
    value, keys = _describe(file), _describe(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _Fault("it does not say which numbers follow")
    kinds = {storage.key: storage.kind for storage in _storages(value)}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        counted = file.read(8)
        if len(counted) < 8:
            raise _Fault("it ends before its numbers")
        size = struct.unpack("<q", counted)[0] * np.dtype(_TYPES[kinds.get(key, "ByteStorage")]).itemsize
        start = file.tell()
        if key not in kinds or not 0 <= size <= length - start:
            raise _Fault(f"the numbers of storage {key} are not whole")
        places[key] = (start, size)
        file.seek(size, os.SEEK_CUR)

    def read(storage: _Storage) -> bytes:
        if storage.key not in places:
            raise _Fault(f"the numbers of storage {storage.key} are missing")
        start, size = places[storage.key]
        file.seek(start)
        return file.read(size)

    return value, read


def _describe(file: Any) -> Any:
    return None


def _view(
    name: str, tensor: _Tensor, read: _Reader, cached: dict[_Storage, np.ndarray]
) -> np.ndarray:
    """Read a tensor; several may share a storage, none may reach beyond it."""
    return np.zeros(0)
