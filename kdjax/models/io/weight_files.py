"""Reads files of weights of every supported format."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kdjax.errors import CORRUPT_FILE_ERRORS, UserError
from kdjax.models.io.convert import from_safetensors
from kdjax.models.io.torch_file import from_torch_file


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name, without running any code of the file.

    Args:
      path: a .npz, .safetensors, .pth, .pt or .th file.

    Returns:
      The arrays with the file's names and layouts, for `load_torch` or `restore`.

    Raises:
      UserError: another format, or a file that is missing, damaged or holds other objects.
    """
    readers: dict[str, Callable[..., dict[str, np.ndarray]]] = {
        ".npz": _from_npz,
        ".safetensors": from_safetensors,
        ".pth": from_torch_file,
        ".pt": from_torch_file,
        ".th": from_torch_file,
    }
    kind = Path(path).suffix.lower()
    if kind not in readers:
        raise UserError(f"{path}: use a file of weights: {', '.join(readers)}")
    return readers[kind](path)


def _from_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .npz file")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UserError(f"{path}: holds one array without a name: use a .npz file")
        with archive as arrays:
            tensors = {name: arrays[name] for name in arrays.files}
        strange = [name for name, value in tensors.items() if not isinstance(value, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]!r} is no array")
        return tensors
    except UserError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"{path}: no whole .npz file of plain arrays: {reason}") from error
