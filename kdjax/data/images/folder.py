"""A folder of pictures in subfolders named after their class.

Layouts: train/CLASS/*.png with val/CLASS or test/CLASS (both: val is the validation split), or only
CLASS/*.png, from which `splits.plan` takes the test split. Names of splits may be in any case,
training, testing, valid or validation, and end in "set". Hidden files are skipped, linked folders
are followed once, and the formats of `decode.picture_formats` are read.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdjax.data.digest import digest, file_lines
from kdjax.data.images.decode import (
    View,
    drop_unreadable,
    fit,
    open_picture,
    picture_channels,
    picture_formats,
)
from kdjax.data.images.readers import existing, is_hidden, visible_files
from kdjax.data.images.streaming import Records, RecordSet
from kdjax.data.split_files import split_of
from kdjax.errors import UserError

Listed = list[tuple[Path, int]]  # pictures and their labels


def folder(path: str | None, view: View, *, skip_unreadable: bool = False) -> RecordSet:
    """Return the set in a folder.

    Args:
        path: the folder; its layout is described in the module docstring.
        view: the resizing of pictures; without a size all must have the size of the first one.
        skip_unreadable: omit pictures that cannot be read, with a warning.

    Raises:
        UserError: no class subfolders, a class that is empty, has only folders or is missing from
            train, two folders for one split, and files that are not pictures.
    """
    root = existing(path, "a folder with train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png")
    folders = _find_splits(root)
    names = tuple(p.name for p in _subfolders(folders["train"]))
    if len(names) < 2:
        raise UserError(
            f"data.path={path}: {folders['train']} has {len(names)} class subfolders with "
            "pictures; at least two are needed, one folder per class"
        )
    listed = {split: _list(folder, names) for split, folder in folders.items()}
    if skip_unreadable:
        files = [str(file) for pictures in listed.values() for file, _ in pictures]
        dropped = drop_unreadable(partial(_open, channels=3), files, f"data.path={path}")
        listed = {
            s: [x for x in pictures if str(x[0]) not in dropped] for s, pictures in listed.items()
        }
    if "validation" in listed and "test" not in listed:
        listed["test"] = listed.pop("validation")
    train = listed["train"]
    missing = set(range(len(names))) - {label for _, label in train}
    if missing:
        raise UserError(f"{folders['train'] / names[min(missing)]} holds no readable pictures")
    first_of_class = {label: file for file, label in reversed(train)}
    channels = max(picture_channels(file) for file in first_of_class.values())
    records = {split: _records(files, channels) for split, files in listed.items()}
    lines = {split: file_lines(root, [file for file, _ in listed[split]]) for split in listed}
    return RecordSet(
        where=f"data.path={path}",
        train=records["train"],
        test=records.get("test"),
        validation=records.get("validation"),
        shape=fit(open_picture(train[0][0], channels), channels, view).shape,
        class_names=names,
        view=view,
        digest=digest({f"{split} pictures": files for split, files in lines.items()}),
        are_files=True,
    )


def _find_splits(root: Path) -> dict[str, Path]:
    """Return the folder of each split; {"train": root} if its subfolders are classes."""
    if not root.is_dir():
        raise UserError(f"data.path={root} is not a folder; give one with a subfolder per class")
    splits: dict[str, Path] = {}
    others = []
    for folder in _subfolders(root):
        split = split_of(folder.name)
        if split in splits:
            raise UserError(f"{splits[split]} and {folder.name} are both {split}; remove one")
        if split is None:
            others.append(folder.name)
        else:
            splits[split] = folder
    if not splits or (set(splits) == {"train"} and not _subfolders(splits["train"])):
        return {"train": root}  # "train" may be a class (of vehicles)
    if "train" not in splits:
        name = next(iter(splits.values())).name
        raise UserError(f"data.path={root} has a folder {name} but no train split; add train/CLASS")
    _warn_left_out(root, others, "folders are no split and")
    for folder in splits.values():
        if not _subfolders(folder):
            raise UserError(f"{folder} has no class subfolders; add or remove it")
    return splits


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def _list(split: Path, names: Sequence[str]) -> Listed:
    """Return the pictures of a split; warn of files that are no pictures."""
    listed: Listed = []
    others = [p for p in split.iterdir() if p.suffix.lower() in _suffixes() and p.is_file()]
    for folder in _subfolders(split):
        if folder.name not in names:
            raise UserError(
                f"{folder} has no counterpart in the training split; its classes are "
                f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            )
        files = sorted(visible_files(folder))
        pictures = [file for file in files if is_picture(file)]
        if not pictures:
            raise UserError(f"{folder} holds no pictures; fill it or remove it")
        if all(file.parent != folder for file in pictures):
            raise UserError(
                f"{folder} holds only folders; a class holds pictures: data.path is the folder of "
                "the classes, or of train and test"
            )
        others += set(files) - set(pictures)
        label = names.index(folder.name)
        listed += [(file, label) for file in pictures]
    names_of_others = [p.relative_to(split).as_posix() for p in others]
    _warn_left_out(split, names_of_others, "files are no pictures of a class and")
    return listed


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    formats = picture_formats()
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def is_picture(file: Path) -> bool:
    """Return whether the suffix or the header is that of a picture; pixels are not checked."""
    if not file.is_file():
        return False
    if file.suffix.lower() in _suffixes():
        return True
    try:
        picture_channels(file)
    except UserError:
        return False
    return True


def _warn_left_out(where: Path, names: Sequence[str], what: str) -> None:
    if names:
        text = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        warnings.warn(f"{where}: {len(names)} {what} left out: {text}", stacklevel=4)


def _records(listed: Listed, channels: int) -> Records:
    files = [str(file) for file, _ in listed]
    label = np.array([label for _, label in listed], np.int32)
    return Records(partial(_get, files, label, channels), len(files), label)


def _get(files: list[str], label: np.ndarray, channels: int, row: int) -> tuple[np.ndarray, int]:
    return _open(files[row], channels), int(label[row])


def _open(file: str, channels: int) -> np.ndarray:
    return open_picture(Path(file), channels)
