"""The files of each split of a set, by the names of files and folders."""

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from kdjax.data.images.readers import existing, visible_files
from kdjax.errors import UserError

T = TypeVar("T")
File = TypeVar("File", bound=PurePath)
Files = dict[str, tuple[Path, ...]]  # split -> its files
_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}


def split_of(name: str) -> str | None:
    """Return the split that a name means, in any case and with or without "set" at its end.

    The matched part of MNLI's splits is read; the mismatched one is not.

    >>> split_of("Valid_Set"), split_of("validation_matched"), split_of("validation_mismatched")
    ('validation', 'validation', None)
    """
    return _NAMES.get(re.sub(r"[-_ ]?set$|_matched$", "", name.lower()))


def find_split_files(path: str | None, suffixes: Sequence[str], expected: str) -> Files:
    """Return the files of each split; a test split is taken from "train" if there is no other.

    A folder or a part of a file's name gives the split: train/0.tar, train-0.tar, my_train.csv.
    If no name gives a split, all files belong to "train". A validation split without a test split
    is the test split.

    Args:
        path: `data.path`, a file or a folder.
        suffixes: the suffixes of the files that are read.
        expected: describes the path in an error.

    Raises:
        UserError: no such file, files of several formats, or no training file.
    """
    root = existing(path, expected)
    if root.is_file():
        return {"train": (root,)}
    return split_files(root, sorted(visible_files(root)), path, suffixes, expected)


def split_files(
    root: File, files: Iterable[File], path: str | None, suffixes: Sequence[str], expected: str
) -> dict[str, tuple[File, ...]]:
    """Return those of the files below `root` that are read, by split; see `find_split_files`."""
    files = [file for file in files if _suffix(file) in suffixes and _is_data(file)]
    if not files:
        raise UserError(f"data.path={path} holds no {', '.join(suffixes)} file; give {expected}")
    formats = sorted({_suffix(file) for file in files})
    if len(formats) > 1:
        raise UserError(f"data.path={path} holds {' and '.join(formats)} files; give one format")
    splits: dict[str | None, list[File]] = {}
    for file in files:
        splits.setdefault(_split_of_file(file.relative_to(root)), []).append(file)
    others = splits.pop(None, [])
    for each in (*splits.values(), others):
        _check_shards(each)
    if not splits:
        return {"train": tuple(others)}
    if others:
        names = ", ".join(file.relative_to(root).as_posix() for file in others[:5])
        warnings.warn(
            f"data.path={path}: {len(others)} files of no split left out: {names}", stacklevel=3
        )
    return order_splits({str(name): tuple(each) for name, each in splits.items()}, path)


def order_splits(splits: dict[str, T], path: str | None) -> dict[str, T]:
    """Return the splits of a set, of which a lone validation split is the test split.

    Raises:
        UserError: no training split.
    """
    if "train" not in splits:
        raise UserError(f"data.path={path} has {', '.join(splits)} but no train split; add one")
    if "validation" in splits and "test" not in splits:
        splits = {**splits, "test": splits["validation"]}
        del splits["validation"]
    return splits


def _suffix(file: PurePath) -> str:
    return file.suffix.lower()


def _is_data(file: PurePath) -> bool:
    """Return whether a file is no cache of the library datasets."""
    return not file.name.startswith(("cache-", "indices-", "tmp"))


def _check_shards(files: Sequence[PurePath]) -> None:
    """Warn of shards NAME-00002-of-00004 that are missing; refuse two numbers of shards."""
    shards: dict[PurePath, dict[int, set[int]]] = {}
    for file in files:
        if match := re.fullmatch(r"(.*)-(\d+)-of-(\d+)", file.stem):
            name, number, count = match.groups()
            totals = shards.setdefault(file.parent / name, {})
            totals.setdefault(int(count), set()).add(int(number))
    for name, totals in shards.items():
        if len(totals) > 1:
            several = " and ".join(map(str, sorted(totals)))
            raise UserError(f"{name} is divided into {several} shards; remove those of one writing")
        ((count, numbers),) = totals.items()
        if len(numbers) < count:
            warnings.warn(f"{name} has {len(numbers)} of {count} shards", stacklevel=5)


def _split_of_file(file: PurePath) -> str | None:
    parts = [*file.parent.parts, *re.split(r"[-_.\s]+", file.stem)]
    if "mismatched" in parts:
        return None
    named = dict.fromkeys(split for part in parts if (split := split_of(part)))
    if len(named) > 1:
        raise UserError(
            f"{file}: its name and folders mean both {' and '.join(named)}; rename it or its folder"
        )
    return next(iter(named), "validation" if "dev" in parts else None)
