"""Reads tensors from PyTorch's files (.pth, .pt, .th) without PyTorch and without running them.

Such a file is a program for Python's unpickler, and `torch.load` runs it. Here `pickle_reader`
parses its instructions and accepts the few that describe tensors. Objects of other names (options,
numpy scalars) are skipped, with a warning that names them; a file whose weights need one is
refused. Both containers are read: the zip archive (since PyTorch 1.6), with the numbers in separate
members, and the older sequence of pickles, followed by the numbers.
"""

import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.errors import CORRUPT_FILE_ERRORS, UserError
from kdjax.models.io.pickle_reader import Global, Handlers, Opaque, read_pickle

# The older container starts with these two numbers.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DESCRIPTION = 64 * 2**20  # bytes; the numbers are not part of it
# Usual keys of weights in checkpoints. Others, such as "student" and "ema", are the user's choice.
_USUAL = ("state_dict", "model", "net", "model_state_dict", "network", "params")
_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # not in numpy: the bits are extended to float32
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_ORDERED = Global("collections", "OrderedDict")
_SIZE = Global("torch", "Size")
_PARAMETERS = {
    Global("torch._utils", f"_rebuild_parameter{ending}") for ending in ("", "_with_state")
}
_TENSORS = {Global("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")}
_STORAGES = {Global("torch", name): name for name in _TYPES}
_ALLOWED = {_ORDERED, _SIZE, *_PARAMETERS, *_TENSORS, *_STORAGES}


class _Storage(NamedTuple):
    """Numbers in the file: `size` of them under `key`."""

    key: str
    kind: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# key of a storage -> its bytes
_Numbers = Callable[[str], bytes | memoryview]


def from_torch_file(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict, or of the state dict in a training checkpoint.

    Of several state dicts the one under "state_dict", "model", "net", ... is read, with a warning
    that names it, if there is exactly one such key.

    Args:
      path: written by `torch.save` of a dict; a pickled module is refused.
      key: of the state dict to read; its tensors are then named "<key>.<name>". A key without a
        state dict is ignored.

    Returns:
      The tensors with PyTorch's names and layouts, as read-only views, for `load_torch`; bfloat16
      becomes float32, every other type stays.

    Raises:
      UserError: the file is missing, damaged or not PyTorch's; its weights need an object other
        than tensors; it holds no state dict, or several without exactly one usual key.
    """
    opaque: dict[str, None] = {}  # names of skipped objects, in order
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content[:4] == b"PK\x03\x04":
            value, numbers = _open_zip(content, opaque)
        elif content[:1] == b"\x80":
            value, numbers = _open_legacy(content, opaque)
        else:
            raise UserError("neither a zip archive nor a pickle, so not a PyTorch file")
        tensors, loaded = _state_dict(path, value, key), {}
        arrays = {name: _view(name, tensor, numbers, loaded) for name, tensor in tensors.items()}
    except UserError as error:
        cause = f"; it needs {next(iter(opaque))}, which is not a tensor" if opaque else ""
        # names in a damaged file may contain line breaks
        reason = " ".join(f"{error}{cause}".split())
        raise UserError(f"{path}: {reason}") from error
    except CORRUPT_FILE_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read, perhaps damaged: {reason}") from error
    if opaque:
        names = " ".join(", ".join(list(opaque)[:5]).split())
        warnings.warn(f"{path}: skipped {names}: no weight needs them", stacklevel=2)
    return arrays


def _open_zip(content: bytes, opaque: dict[str, None]) -> tuple[Any, _Numbers]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    descriptions = [name for name in sizes if name.split("/")[-1] == "data.pkl"]
    if len(descriptions) != 1:
        raise UserError("a zip archive without a data.pkl, so not a PyTorch file")
    # torch.save does not compress; this check bounds the bytes that are read by the file's size
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise UserError(
            "its members are compressed, which no state dict is: refused; save it with torch.save"
        )
    if sum(sizes.values()) > len(content):
        raise UserError("its members overlap: refused")
    prefix = descriptions[0].removesuffix("data.pkl")
    if sizes[descriptions[0]] > _MAX_DESCRIPTION:
        raise UserError(f"{descriptions[0]} has more than {_MAX_DESCRIPTION} bytes: refused")
    order = f"{prefix}byteorder"
    if order in sizes and archive.read(order) != b"little":
        raise UserError("its numbers are big-endian: save it on a little-endian machine")

    def numbers(key: str) -> bytes:
        name = f"{prefix}data/{key}"
        if name not in sizes:
            raise UserError(f"{name} is missing in the archive")
        return archive.read(name)

    description = io.BytesIO(archive.read(descriptions[0]))
    return read_pickle(description, _handlers({}, opaque)), numbers


def _open_legacy(content: bytes, opaque: dict[str, None]) -> tuple[Any, _Numbers]:
    file, storages = io.BytesIO(content), {}
    handlers = _handlers(storages, opaque)
    if read_pickle(file, handlers) != _MAGIC:
        raise UserError("a pickle, but not of PyTorch")
    protocol, system = read_pickle(file, handlers), read_pickle(file, handlers)
    if protocol != _PROTOCOL or not isinstance(system, dict):
        raise UserError(f"it does not follow PyTorch's protocol {_PROTOCOL}")
    if system.get("little_endian") is not True:
        raise UserError("its numbers are big-endian: save it on a little-endian machine")
    value, keys = read_pickle(file, handlers), read_pickle(file, handlers)
    if not isinstance(keys, list) or any(key not in storages for key in map(str, keys)):
        raise UserError("its description is damaged: the list of its storages")
    view, stop, blocks = memoryview(content), file.tell(), {}
    for key in map(str, keys):
        count = int.from_bytes(content[stop : stop + 8], "little")
        start, width = stop + 8, np.dtype(_TYPES[storages[key].kind]).itemsize
        stop = start + count * width
        blocks[key] = view[start:stop]

    def numbers(key: str) -> memoryview:
        if key not in blocks:
            raise UserError(f"the numbers of storage {key} are missing")
        return blocks[key]

    return value, numbers


def _handlers(storages: dict[str, _Storage], opaque: dict[str, None]) -> Handlers:
    """Make handlers that accept only tensors; they add storages and other names to the tables."""

    def name(requested: Global) -> Global | Opaque:
        if requested in _ALLOWED:
            return requested
        other = f"{requested.module}.{requested.name}"[:80]
        opaque[other] = None
        return Opaque(other)

    def call(function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Opaque):
            return function
        if function == _ORDERED:
            return _ordered_dict(*arguments)
        if function == _SIZE and len(arguments) == 1 and isinstance(arguments[0], tuple | list):
            return tuple(arguments[0])
        if function in _PARAMETERS and arguments and isinstance(arguments[0], _Tensor):
            return arguments[0]
        if function in _TENSORS and len(arguments) >= 4:
            return _tensor(*arguments[:4])
        raise UserError("its description is damaged: a call that makes no tensor")

    def reference(parts: Any) -> _Storage:
        """Read ("storage", type, key, device, size); old files add None, for views."""
        if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
            what = parts[0] if isinstance(parts, tuple) and parts else parts
            raise UserError(f"it refers to {str(what)[:40]!r}, which is not a storage: refused")
        if parts[5:] not in ((), (None,)) or parts[1] not in _STORAGES:
            raise UserError(f"it has a storage of the unknown type {str(parts[1])[:80]}: refused")
        if not isinstance(parts[4], int) or parts[4] < 0:
            raise UserError("its description is damaged: the size of a storage")
        storage = _Storage(str(parts[2]), _STORAGES[parts[1]], parts[4])
        if storages.setdefault(storage.key, storage) != storage:
            raise UserError(f"its description is damaged: storage {storage.key} differs")
        return storage

    return Handlers(name, call, reference)


def _ordered_dict(pairs: Iterable[Any] = ()) -> dict[str, Any]:
    if any(not isinstance(key, str) for key, _ in pairs):
        raise UserError("it has an ordered dict whose keys are not names: refused")
    return dict(pairs)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and isinstance(offset, int)):
        raise UserError("its description is damaged: a tensor without a storage")
    if not all(isinstance(sizes, tuple) and len(sizes) <= 32 for sizes in (shape, strides)):
        raise UserError("its description is damaged: the shape of a tensor")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *shape, *strides)):
        raise UserError("its description is damaged: the shape of a tensor")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and (last >= storage.size or count > storage.size):
        raise UserError("its description is damaged: a tensor is larger than its storage")
    return _Tensor(storage, offset, shape, strides)


def _state_dict(path: Any, value: Any, key: str | None) -> dict[str, _Tensor]:
    if _is_state_dict(value):
        return dict(value)
    table = value if isinstance(value, Mapping) else {}
    candidates = [k for k, v in table.items() if _is_state_dict(v) or _is_usual(k, v)]
    usual = [k for k in _USUAL if k in candidates]
    chosen = [key] if key in candidates else usual if len(usual) == 1 else candidates
    keys = ", ".join(str(k) for k in [*(candidates or table)][:20]) or "none"
    if len(chosen) > 1:
        raise UserError(f"it holds several state dicts; its keys are: {keys}; choose by --key")
    if not chosen:
        if not isinstance(value, Mapping):
            raise UserError("it holds no dict; save the state dict of the network")
        raise UserError(f"it holds no state dict; its keys are: {keys}")
    tensors = table[chosen[0]]
    other = next((name for name, v in tensors.items() if not isinstance(v, _Tensor)), None)
    if other is not None:
        raise UserError(f"{chosen[0]} holds {other!r}, which is not a tensor: refused")
    if key == chosen[0]:
        return {f"{key}.{name}": tensor for name, tensor in tensors.items()}
    if len(candidates) > 1:
        warnings.warn(
            f"{path}: read {chosen[0]!r} of its state dicts ({keys}); choose another by --key",
            stacklevel=4,
        )
    return dict(tensors)


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in value.items())


def _is_usual(key: Any, value: Any) -> bool:
    """Return whether a usual key holds tensors, perhaps besides other values."""
    tensors = isinstance(value, Mapping) and any(isinstance(v, _Tensor) for v in value.values())
    return tensors and key in _USUAL


def _view(
    name: str, tensor: _Tensor, numbers: _Numbers, loaded: dict[str, np.ndarray]
) -> np.ndarray:
    key, kind, size = tensor.storage
    if key not in loaded:
        content, width = numbers(key), np.dtype(_TYPES[kind]).itemsize
        if len(content) < size * width:
            raise UserError(
                f"{name}: its numbers are cut short, {len(content)} bytes of {size * width}"
            )
        array = np.frombuffer(content, _TYPES[kind], size)
        if kind == "BFloat16Storage":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        loaded[key] = array
    array = loaded[key]
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, array.dtype)
    steps = tuple(step * array.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        array[tensor.offset :], tensor.shape, steps, writeable=False
    )
