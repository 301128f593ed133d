"""A folder of pictures in subfolders named after their class.

Layouts: train/CLASS/*.png with val/CLASS or test/CLASS (both: val validates, test tests), or
CLASS/*.png alone, from which `splits.plan` cuts the test split. JPEG, PNG, BMP, GIF and WebP.
"""

from functools import partial
from pathlib import Path

import numpy as np

from kdjax.data.images.decode import View, fit, open_picture, picture_channels
from kdjax.data.images.readers import existing
from kdjax.data.images.streaming import Records, RecordSet
from kdjax.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
_VALIDATION = ("val", "validation", "valid")


def folder(path: str | None, view: View) -> RecordSet:
    """Return the set in a folder.

    Args:
        path: of the folder, see the module for its layout.
        view: the resizing of pictures; without a size all must have that of the first one.

    Raises:
        UserError: on a folder without class subfolders, an empty class, a class that is only in
            the test split, and files that are not pictures.
    """
    root = existing(path, "a folder with train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png")
    train = root / "train" if (root / "train").is_dir() else root
    names = _classes(train)
    if len(names) < 2:
        raise UserError(
            f"data.path={path}: {train} has {len(names)} class subfolders with pictures; "
            "at least two are needed, one folder per class"
        )
    listed = _list(train, names)
    first_of_class = {label: file for file, label in reversed(listed)}
    channels = max(picture_channels(file) for file in first_of_class.values())
    first = fit(open_picture(listed[0][0], channels), channels, view)
    others = {} if train == root else _other_splits(root, names)
    records = {split: _records(files, channels) for split, files in others.items()}
    return RecordSet(
        where=f"data.path={path}",
        train=_records(listed, channels),
        test=records.get("test"),
        validation=records.get("validation"),
        shape=first.shape,
        class_names=names,
        view=view,
    )


def _classes(split: Path) -> tuple[str, ...]:
    """Return the names of the subfolders; refuse one without pictures."""
    if not split.is_dir():
        raise UserError(f"data.path={split} is not a folder; give one with a subfolder per class")
    names = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    for name in names:
        if not any(p.suffix.lower() in _SUFFIXES for p in (split / name).rglob("*")):
            raise UserError(
                f"{split / name} holds no pictures ({', '.join(sorted(_SUFFIXES))}); "
                "fill it or remove it"
            )
    return tuple(names)


def _list(split: Path, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    index = {name: label for label, name in enumerate(names)}
    unknown = [name for name in _classes(split) if name not in index]
    if unknown:
        raise UserError(
            f"{split / unknown[0]} has no counterpart in the training split; its classes are "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    return [
        (file, label)
        for name, label in index.items()
        for file in sorted((split / name).rglob("*"))
        if file.suffix.lower() in _SUFFIXES
    ]


def _other_splits(root: Path, names: tuple[str, ...]) -> dict[str, list[tuple[Path, int]]]:
    """Return "test" and "validation" if they exist; without "test", val is the test split."""
    splits = {}
    for split, spellings in (("test", ("test",)), ("validation", _VALIDATION)):
        for spelling in spellings:
            if (root / spelling).is_dir():
                splits[split] = _list(root / spelling, names)
                if not splits[split]:
                    raise UserError(f"{root / spelling} has no class subfolders; add or remove it")
    if "validation" in splits and "test" not in splits:
        splits["test"] = splits.pop("validation")
    return splits


def _records(listed: list[tuple[Path, int]], channels: int) -> Records:
    files = [str(file) for file, _ in listed]
    label = np.array([label for _, label in listed], np.int32)
    return Records(partial(_get, files, label, channels), len(files), label)


def _get(files: list[str], label: np.ndarray, channels: int, row: int) -> tuple[np.ndarray, int]:
    return open_picture(Path(files[row]), channels), int(label[row])
