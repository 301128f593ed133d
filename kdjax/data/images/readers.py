"""Readers of sets that are one file or folder: digits, npz, idx.

Each returns an `in_memory.ImageSet` of checked arrays or raises one `UserError`.
"""

import gzip
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kdjax.data.images.in_memory import ImageSet, check
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError

_SPLITS = ("train", "test", "val")
_RANGES_DIFFER = 50  # ratio of the largest pixels of two splits: 255 where one is divided by 255


def digits() -> ImageSet:
    """Return scikit-learn's 1,797 digits: uint8 [8, 8, 1] with values 0 to 16, no test split.

    Raises:
        UserError: scikit-learn, whose wheel contains the digits, is not installed.
    """
    # Only the file is needed: importing sklearn.datasets takes seconds.
    package = find_spec("sklearn")
    file = Path((package and package.origin) or "", "..", "datasets", "data", "digits.csv.gz")
    try:
        with gzip.open(file.resolve()) as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except OSError as error:
        raise UserError("data.name=digits reads scikit-learn's wheel; pip install it") from error
    train = check(table[:, :-1].reshape(-1, 8, 8), table[:, -1], 10, "digits", "train")
    return ImageSet("digits", train, None, None, 10, tuple("0123456789"), 16.0)


def npz(path: str | None, num_classes: int | None = None, *, needs_test: bool = True) -> ImageSet:
    """Read an .npz with x_train, y_train, x_test, y_test; optional are x_val, y_val, class_names.

    Args:
        path: the file.
        num_classes: the number of classes; None: from class_names or from the labels.
        needs_test: whether x_test and y_test are required.

    Raises:
        UserError: a missing file or key, pickled arrays, and the errors of `assemble`.
    """
    arrays = _read_npz(path)
    where = f"data.path={path}"
    needed = ("train", "test") if needs_test else ("train",)
    splits = [s for s in _SPLITS if s in needed or {f"x_{s}", f"y_{s}"} & arrays.keys()]
    keys = [f"{x}_{split}" for split in splits for x in "xy"]
    missing = [key for key in keys if key not in arrays]
    if missing:
        hint = " (or set data.test to split one off)" if missing[0] == "x_test" else ""
        raise UserError(
            f"{where} lacks the keys {', '.join(missing)}{hint}; "
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    unread = sorted(arrays.keys() - {*keys, "class_names"})
    if unread:
        warnings.warn(f"{where}: nothing reads its keys {', '.join(unread)}", stacklevel=3)
    names = _class_names(arrays.get("class_names"), where)
    pairs = {split: (arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in splits}
    return assemble(where, pairs, names, num_classes=num_classes)


def assemble(
    where: str,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    names: tuple[str, ...] | None,
    *,
    num_classes: int | None,
) -> ImageSet:
    """Check that images and labels of "train", "test" and "val" agree, and return the set.

    Raises:
        UserError: the errors of `in_memory.check`, splits of different shape, dtype or range, and
            gaps in the labels, unless names or `num_classes` are set.
    """
    if names and num_classes is not None and len(names) != num_classes:
        raise UserError(f"data.num_classes is {num_classes} but {where} names {len(names)} classes")
    stated = num_classes if num_classes is not None else (len(names) if names else None)
    train = check(*splits["train"], stated, where, "train")
    count = stated if stated is not None else _count_classes(train.label, where)
    pairs = {s: check(*splits[s], count, where, s) for s in ("test", "val") if s in splits}
    for split, pair in pairs.items():
        _check_equal_format(train.image, pair.image, f"x_{split}", where)
    scale = 255.0 if train.image.dtype == np.uint8 else 1.0
    class_names = names or tuple(str(index) for index in range(count))
    return ImageSet(where, train, pairs.get("test"), pairs.get("val"), count, class_names, scale)


def _count_classes(label: np.ndarray, where: str) -> int:
    """Return max + 1; refuse gaps, which labels from 1 or a typing error would leave."""
    count = int(label.max()) + 1
    present = np.unique(label)
    if len(present) < count:
        gap = int(np.argmax(present != np.arange(len(present))))
        raise UserError(
            f"{where}: y_train goes up to {count - 1} but label {gap} never occurs; labels run "
            "from 0 without gaps unless data.num_classes or the key class_names allows them"
        )
    return count


def _check_equal_format(train: np.ndarray, other: np.ndarray, key: str, where: str) -> None:
    if train.shape[1:] != other.shape[1:] or train.dtype != other.dtype:
        raise UserError(
            f"{where}: x_train holds {train.dtype} {train.shape[1:]} but {key} "
            f"{other.dtype} {other.shape[1:]}; both must be the same"
        )
    ends = [(float(image.min()), float(image.max())) for image in (train, other)]
    ranges = f"x_train lies in [{ends[0][0]:g}, {ends[0][1]:g}] but {key} in " + (
        f"[{ends[1][0]:g}, {ends[1][1]:g}]"
    )
    low, high = sorted(max(-least, most) for least, most in ends)
    if high > _RANGES_DIFFER * low:
        raise UserError(f"{where}: {ranges}; scale both alike")
    if (ends[0][0] < 0) != (ends[1][0] < 0):
        warnings.warn(f"{where}: {ranges}; are both scaled alike?", stacklevel=4)


def _read_npz(path: str | None) -> dict[str, np.ndarray]:
    file = existing(path, "an .npz file with x_train, y_train, x_test, y_test")
    try:
        with zipfile.ZipFile(file):  # np.load reports any other file as a pickle
            pass
        with np.load(file, allow_pickle=False) as loaded:
            arrays = {key: loaded[key] for key in loaded.files}
        if not all(isinstance(value, np.ndarray) for value in arrays.values()):
            raise ValueError("a member is no array")
        return arrays
    except CORRUPT_FILE_ERRORS as error:
        pickled = "allow_pickle" in str(error)
        reason = "holds pickled objects" if pickled else "is not a readable .npz"
        raise UserError(
            f"data.path={path} {reason}; write plain arrays with np.savez_compressed"
        ) from error


def existing(path: str | None, expected: str) -> Path:
    """Return `data.path` if it exists.

    Raises:
        UserError: it does not exist; the error describes the `expected` path.
    """
    if not path:
        raise UserError(f"data.path is not set; give {expected}")
    expanded = Path(path).expanduser()  # a shell does not expand --config.data.path=~/x
    if not expanded.exists():
        raise UserError(f"data.path={path} does not exist; give {expected}")
    return expanded


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a hidden or temporary file of a system or editor."""
    return name.startswith(".") or name == "__MACOSX"


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files at any depth that are not hidden; no folder is entered twice."""
    entered = {str(parent) for parent in folder.resolve().parents}
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(parent, name) for name in files if not is_hidden(name))


def _class_names(names: np.ndarray | None, where: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "SU" or len(names) == 0:
        raise UserError(
            f"{where}: class_names is {names.dtype} {names.shape}; it must be a list of strings"
        )
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


# The magic of an idx file: two zeros, a type (8 = unsigned byte), the number of dimensions.
_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801
_IDX_LIMIT = 2**40  # bytes; no machine holds more
_IDX_NAMES = {
    ("train", "images"): ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    ("train", "labels"): ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    ("test", "images"): ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    ("test", "labels"): ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


def idx(path: str | None, num_classes: int | None = None) -> ImageSet:
    """Read a folder with MNIST's four idx files, plain or gzipped.

    Debian's package dataset-fashion-mnist installs them in /usr/share/datasets/fashion-mnist.

    Raises:
        UserError: a file that is missing, truncated or of another format.
    """
    folder = existing(path, "the folder of train-images-idx3-ubyte(.gz) and its three siblings")
    arrays = {
        key: _read_idx(_find_idx(folder, names), _IDX_IMAGES if key[1] == "images" else _IDX_LABELS)
        for key, names in _IDX_NAMES.items()
    }
    return assemble(
        f"data.path={path}",
        {split: (arrays[split, "images"], arrays[split, "labels"]) for split in ("train", "test")},
        None,
        num_classes=num_classes,
    )


def _find_idx(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise UserError(f"data.path={folder} has no file {names[0]} or {names[0]}.gz")


def _read_idx(file: Path, magic: int) -> np.ndarray:
    dims = magic & 0xFF
    header = 4 * (1 + dims)
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            raw = opened.read(header)
            declared = np.frombuffer(raw[4:], ">u4") if len(raw) == header else []
            # reading one byte more detects a longer file without unpacking all of it
            raw += opened.read(min(math.prod(int(n) for n in declared), _IDX_LIMIT) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read as gzip ({error}); fetch it again") from error
    if len(raw) < header or int.from_bytes(raw[:4], "big") != magic:
        raise UserError(
            f"{file} starts with 0x{raw[:4].hex()}; an idx file of {dims}-dimensional bytes starts "
            f"with 0x{magic:08x}"
        )
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dims, offset=4))
    if len(raw) - header != math.prod(shape):
        more = "or more " if len(raw) - header > math.prod(shape) else ""
        raise UserError(
            f"{file} has {len(raw) - header} {more}bytes of data but its header declares {shape}; "
            "the file is truncated or damaged: fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
