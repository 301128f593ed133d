"""Folders and zip files in COCO's layout: pictures, boxes, classes.

    annotations/instances_train*.json    annotations/instances_val*.json
    train*/PICTURE                       val*/PICTURE

The part after "instances_" names the folder of the pictures. In a zip, one folder may hold
all of them.
"""

import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.digest import digest, file_lines
from kdjax.data.images.decode import open_picture
from kdjax.data.images.readers import existing, visible_files
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError

_LAYOUT = "a folder or .zip with annotations/instances_train*.json and train*/, the same for val"
_WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError)  # JSON of another form


class _Box(NamedTuple):
    """An annotation: its sides (left, top, right, bottom), class, crowd, area."""

    sides: Any
    label: int
    crowd: bool
    area: float


class Photo(NamedTuple):
    """One picture and its boxes, in its own pixels: (left, top, right, bottom)."""

    file: str  # path inside the folder or zip
    size: tuple[int, int]  # height, width
    box: np.ndarray  # float32 [n, 4]
    label: np.ndarray  # int32 [n]
    crowd: np.ndarray  # bool [n]
    area: np.ndarray  # float32 [n], as annotated: of the mask; COCO defines "small" by it


class Photos(NamedTuple):
    """The pictures of both splits and the classes; `where` is the name of the set in errors."""

    path: str
    where: str
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    class_names: tuple[str, ...]


def read_coco(path: str | None) -> Photos:
    """Read both splits' annotations, without opening pictures.

    The classes are the categories of train, by id; those of val are matched by name. Boxes are
    clipped to their picture, and boxes without area are dropped; a warning counts both.

    Raises:
        UserError: one line with the file, the id and what would be right: another layout; a file
            that is not COCO's JSON; repeated ids or names; an annotation of an unknown category or
            picture; boxes that are missing or not in pixels; missing pictures.
    """
    path = str(existing(path, _LAYOUT))
    where = f"data.path={path}"
    names = _names(path)
    files = {split: _annotation_file(path, names, split) for split in ("train", "val")}
    tables = {split: _json(path, file) for split, file in files.items()}
    categories = {split: _categories(f"{where}: {split}", tables[split]) for split in tables}
    class_names = tuple(categories["train"].values())
    if not class_names:
        raise UserError(f"{where}: the train annotations name no categories")
    index = {name: number for number, name in enumerate(class_names)}
    photos = {
        split: _photos(
            f"{where}: {split}",
            tables[split],
            _picture_folder(file),
            names,
            {category: index.get(name, name) for category, name in categories[split].items()},
        )
        for split, file in files.items()
    }
    return Photos(path, where, photos["train"], photos["val"], class_names)


def open_photo(path: str, photo: Photo) -> np.ndarray:
    """Return a picture as uint8 [height, width, 3], in the frame of its annotations.

    Annotations refer to the picture after EXIF's rotation, unless only the stored pixels have their
    width and height.

    Raises:
        UserError: the picture cannot be decoded, or its size is not that of its annotations.
    """
    return open_picture(
        lambda: BytesIO(_read(path, photo.file)),
        3,
        name=f"{path}: {photo.file}",
        size=photo.size,
    )


def photos_digest(photos: Photos) -> dict[str, str]:
    """Return the digest of the annotations of both splits, and of the names and sizes of files."""
    root = Path(photos.path)
    parts: dict[str, Any] = {}
    for split, rows in (("train", photos.train), ("test", photos.val)):
        for field in ("box", "label", "crowd", "area"):
            parts[f"{split} {field}"] = np.concatenate([getattr(photo, field) for photo in rows])
        counts = [f"{photo.file} {photo.size} {len(photo.label)}" for photo in rows]
        if root.is_dir():
            sizes = file_lines(root, [root / photo.file for photo in rows])
        else:
            sizes = [str(_archive(photos.path).getinfo(photo.file).CRC) for photo in rows]
        parts[f"{split} pictures"] = [*counts, *sizes]
    return digest(parts)


def _picture_folder(annotation_file: str) -> str:
    root, _, name = annotation_file.rpartition("annotations/")
    return root + Path(name).stem.removeprefix("instances_") + "/"


def _refusal(where: str, kind: str, entry: Any, error: Exception) -> UserError:
    """Return the error for a wrong entry of a table, with its id."""
    if isinstance(error, UserError):
        return UserError(f"{where}: {kind} id {entry['id']} {error}")
    name = entry.get("id", "without id") if isinstance(entry, dict) else repr(entry)[:40]
    problem = f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__} {error}"
    return UserError(f"{where}: {kind} {name}: not COCO's json: {problem}")


def _categories(where: str, table: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the categories by id, ascending."""
    entry, names = None, {}
    try:
        for entry in table["categories"]:
            key, name = int(entry["id"]), str(entry.get("name") or "")
            if not name or key in names or name in names.values():
                problem = "is listed twice" if name else "has no name"
                raise UserError(f"{name} {problem}; give each id a name of its own".strip())
            names[key] = name
    except _WRONG as error:
        raise _refusal(where, "category", entry, error) from error
    return dict(sorted(names.items()))


def _photos(
    where: str,
    table: Mapping[str, Any],
    folder: str,
    names: frozenset[str],
    classes: Mapping[int, int | str],
) -> tuple[Photo, ...]:
    """Return the pictures of a split; `classes`: id -> label, or name if it is not in train."""
    rows: dict[Any, list[_Box]] = {}
    kind, entry = "image", None
    ids, counts, photos = set(), Counter(), []
    try:
        for entry in table["images"]:
            if entry["id"] in rows:
                raise UserError("is listed twice; remove one")
            rows[entry["id"]] = []
        kind = "annotation"
        for entry in table["annotations"]:
            if entry["id"] in ids:
                raise UserError("is listed twice; remove one")
            ids.add(entry["id"])
            if entry["image_id"] not in rows:
                raise UserError(
                    f'is of image {entry["image_id"]}, which "images" does not list; add the image '
                    "or remove the annotation"
                )
            rows[entry["image_id"]].append(_box(entry, classes))
        entry = next(iter(table["annotations"]), None)
        _check_pixels([box.sides for boxes in rows.values() for box in boxes])
        kind = "image"
        for entry in table["images"]:
            photos.append(_photo(entry, rows[entry["id"]], folder, counts))
    except _WRONG as error:
        raise _refusal(where, kind, entry, error) from error
    missing = [photo.file for photo in photos if photo.file not in names]
    if missing:
        raise UserError(f"{where}: {len(missing)} pictures are missing, the first is {missing[0]}")
    if counts:
        changes = ", ".join(f"{count} boxes {change}" for change, count in sorted(counts.items()))
        warnings.warn(f"{where}: {changes}", stacklevel=3)
    return tuple(photos)


def _box(note: Mapping[str, Any], classes: Mapping[int, int | str]) -> _Box:
    category = note["category_id"]
    label = classes.get(category)
    if not isinstance(label, int):
        name = f" ({label!r})" if label else ""
        raise UserError(f'has category {category}{name}, which "categories" of train does not list')
    left, top, wide, tall = (float(x) for x in note["bbox"])
    box = (left, top, left + wide, top + tall)
    return _Box(box, label, bool(note.get("iscrowd", 0)), float(note.get("area") or wide * tall))


def _check_pixels(boxes: Sequence[tuple[float, ...]]) -> None:
    """Refuse boxes of which none reaches beyond the first pixel: they are fractions."""
    if boxes and all(max(box) <= 1 for box in boxes):
        raise UserError(
            "has a box in 0 to 1, like all others; a bbox is [left, top, width, height] in pixels"
        )


def _photo(
    image: Mapping[str, Any], boxes: Sequence[_Box], folder: str, counts: Counter[str]
) -> Photo:
    height, width = int(image["height"]), int(image["width"])
    if min(height, width) < 1:
        raise UserError(f"is {width}x{height}; a picture has one pixel or more")
    objects = []
    for box in boxes:
        if not (box.sides[2] > box.sides[0] and box.sides[3] > box.sides[1]):  # NaN too
            counts["without area were dropped"] += 1
            continue
        inside = np.clip(box.sides, 0, [width, height, width, height])
        if not (inside[2:] > inside[:2]).all():
            counts["outside of their picture were dropped"] += 1
            continue
        # annotations are rounded to hundredths, so sums may end slightly outside
        if np.abs(inside - box.sides).max() > 0.5:
            counts["were cut at the edge of their picture"] += 1
        objects.append(box._replace(sides=inside))
    return Photo(
        file=folder + str(image["file_name"]),
        size=(height, width),
        box=np.array([box.sides for box in objects], np.float32).reshape(-1, 4),
        label=np.array([box.label for box in objects], np.int32),
        crowd=np.array([box.crowd for box in objects], bool),
        area=np.array([box.area for box in objects], np.float32),
    )


def _names(path: str) -> frozenset[str]:
    if Path(path).is_dir():
        root = Path(path)
        return frozenset(p.relative_to(root).as_posix() for p in visible_files(root))
    try:
        return frozenset(_archive(path).namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"data.path={path}: not a readable zip file; give {_LAYOUT}") from error


def _annotation_file(path: str, names: frozenset[str], split: str) -> str:
    files = sorted(
        name
        for name in names
        if Path(name).match(f"annotations/instances_{split}*.json") and "__MACOSX" not in name
    )
    if len(files) != 1:
        count = "several" if files else "no"
        raise UserError(
            f"data.path={path}: {count} annotations/instances_{split}*.json; give {_LAYOUT}"
        )
    return files[0]


def _json(path: str, file: str) -> Mapping[str, Any]:
    try:
        table = json.loads(_read(path, file))
    except CORRUPT_FILE_ERRORS as error:
        raise UserError(f"data.path={path}: {file} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"data.path={path}: {file} is not COCO's json: no table")
    lacking = [key for key in ("images", "annotations", "categories") if key not in table]
    if lacking:
        raise UserError(f"data.path={path}: {file} lacks {', '.join(lacking)}: not COCO's json")
    return table


def _read(path: str, file: str) -> bytes:
    if Path(path).is_dir():
        return (Path(path) / file).read_bytes()
    return _archive(path).read(file)


@lru_cache(maxsize=4)
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # reads are locked: threads may share it
