"""Reads files of weights of every supported format."""

import json
import os
from pathlib import Path

import numpy as np

from kdjax.errors import CORRUPT_FILE_ERRORS, UserError
from kdjax.models.io.convert import from_safetensors
from kdjax.models.io.torch_file import from_torch_file

_TORCH = (".pth", ".pt", ".th", ".tar", ".bin")
_KNOWN = ", ".join((".npz", ".safetensors", *_TORCH, "model.safetensors.index.json"))
# files of a folder; the first that exists is read, as in Hugging Face
_IN_FOLDER = (
    "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_LFS_POINTER = b"version https://git-lfs"


def read_weights(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name, without running any code of the file.

    Args:
      path: a .npz, .safetensors or PyTorch file (of any suffix), an index of shards, or a folder
        that holds model.safetensors or pytorch_model.bin, in one file or in shards.
      key: of the arrays to read: of a state dict in a checkpoint, or a prefix of names.

    Returns:
      The arrays with the file's layouts and names, without the prefix `key`, for `load_torch` or
      `restore`.

    Raises:
      UserError: another format, or a file that is missing, damaged or holds other objects; no
        array under the key.
    """
    file = weights_file(path)
    tensors = _from_shards(file) if file.suffix == ".json" else _read(file, key)
    if key is None:
        return tensors
    chosen = {
        name.removeprefix(f"{key}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{key}.")
    }
    if not chosen:
        keys = ", ".join(list(dict.fromkeys(name.split(".")[0] for name in tensors))[:20])
        raise UserError(f"{file}: no weights under the key {key!r}; its names start with {keys}")
    return chosen


def has_weights(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a file of weights."""
    return any((Path(folder) / name).is_file() for name in _IN_FOLDER)


def weights_file(path: str | os.PathLike[str]) -> Path:
    """Return the file of weights of a folder, or the file itself.

    Raises:
      UserError: there is no such file.
    """
    file = Path(path)
    if file.is_dir():
        names = [name for name in _IN_FOLDER if (file / name).is_file()]
        file /= (*names, *_IN_FOLDER)[0]
    if not file.is_file():
        raise UserError(f"{file}: no such file; use a file of weights: {_KNOWN}")
    return file


def _read(file: Path, key: str | None) -> dict[str, np.ndarray]:
    """Read a file; its format follows from the suffix or, where that is ambiguous, the content."""
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    suffix = file.suffix.lower()
    first_member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if head.startswith(_LFS_POINTER):
        raise UserError(f"{file}: a pointer of Git LFS, not the weights; run `git lfs pull`")
    if suffix == ".safetensors" or (suffix != ".npz" and head[8:9] == b"{"):
        return from_safetensors(file)
    if suffix == ".npz" or (head[:2] == b"PK" and first_member.endswith(b".npy")):
        return _from_npz(file)
    if suffix in _TORCH or head[:2] == b"PK" or head[:1] == b"\x80":
        return from_torch_file(file, key)
    raise UserError(f"{file}: use a file of weights: {_KNOWN}")


def _from_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        table = json.loads(index.read_text())["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index}: not an index of shards with a weight_map") from error
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        if Path(name).name != name or name.endswith(".json"):
            raise UserError(f"{index}: {name[:80]!r} is not a file of weights next to it")
        tensors |= _read(weights_file(index.parent / name), None)
    if lacking := [name for name in table if name not in tensors]:
        raise UserError(f"{index}: its files lack {', '.join(lacking[:12])}")
    return tensors


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UserError(f"{path}: holds one array without a name: use a .npz file")
        with archive as arrays:
            tensors = {name: arrays[name] for name in arrays.files}
        others = [name for name, value in tensors.items() if not isinstance(value, np.ndarray)]
        if others:
            raise ValueError(f"{others[0]!r} is not an array")
        return tensors
    except UserError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"{path}: not a whole .npz file of plain arrays: {reason}") from error
