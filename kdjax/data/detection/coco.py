"""Folders and zip files in COCO's layout: pictures, boxes, classes.

    annotations/instances_train*.json    annotations/instances_val*.json
    train*/PICTURE                       val*/PICTURE

The part after "instances_" names the folder of the pictures. In a zip, one folder may hold
all of them.
"""

import io
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data.images.readers import existing
from kdjax.errors import UserError

_LAYOUT = "a folder or .zip with annotations/instances_train*.json and train*/, the same for val"


class Photo(NamedTuple):
    """One picture and its boxes, in its own pixels: (left, top, right, bottom)."""

    file: str  # path inside the folder or zip
    size: tuple[int, int]  # height, width
    box: np.ndarray  # float32 [n, 4]
    label: np.ndarray  # int32 [n]
    crowd: np.ndarray  # bool [n]
    area: np.ndarray  # float32 [n], as annotated: of the mask, which COCO measures small by


class Photos(NamedTuple):
    """The pictures of both splits and the classes; `where` names the set in errors."""

    path: str
    where: str
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    class_names: tuple[str, ...]


def read_coco(path: str | None) -> Photos:
    """Read both splits' annotations; no picture is opened.

    Boxes are cut at the edge of their picture and those without area are dropped; a warning counts
    both.

    Raises:
        UserError: one line naming the file and what would be right: no such layout; a file that is
            not COCO's json; a category or a picture that an annotation names and the file does
            not; pictures that are listed twice or missing.
    """
    path = str(existing(path, _LAYOUT))
    where = f"data.path={path}"
    names = _names(path)
    annotation_files = [_annotation_file(path, names, split) for split in ("train", "val")]
    tables = [_json(path, file) for file in annotation_files]
    classes = {int(c["id"]): str(c["name"]) for c in tables[0]["categories"]}
    if not classes:
        raise UserError(f"{where}: the train annotations name no categories")
    class_index = {category: index for index, category in enumerate(sorted(classes))}
    train, val = (
        _photos(f"{where}: {split}", table, _picture_folder(file), names, class_index)
        for split, table, file in zip(("train", "val"), tables, annotation_files, strict=True)
    )
    class_names = tuple(classes[category] for category in class_index)
    return Photos(path, where, train, val, class_names)


def open_photo(path: str, photo: Photo) -> np.ndarray:
    """Return a picture as uint8 [height, width, 3].

    Raises:
        UserError: it cannot be decoded, or its size is not that of its annotations.
    """
    try:
        with Image.open(io.BytesIO(_read(path, photo.file))) as picture:
            image = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: {photo.file} is not a readable picture; repair it, or set "
            "data.unreadable=skip"
        ) from error
    if image.shape[:2] != photo.size:
        raise UserError(
            f"{path}: {photo.file} is {image.shape[1]}x{image.shape[0]}, but its annotations are "
            f"of {photo.size[1]}x{photo.size[0]}; boxes would not fit"
        )
    return image


def _picture_folder(annotation_file: str) -> str:
    root, _, name = annotation_file.rpartition("annotations/")
    return root + Path(name).stem.removeprefix("instances_") + "/"


def _photos(
    where: str,
    table: Mapping[str, Any],
    folder: str,
    names: frozenset[str],
    class_index: Mapping[int, int],
) -> tuple[Photo, ...]:
    rows: dict[int, list[Mapping[str, Any]]] = {}
    try:
        for image in table["images"]:
            if image["id"] in rows:
                raise UserError(f"{where}: image id {image['id']} is listed twice")
            rows[image["id"]] = []
        for note in table["annotations"]:
            if note["image_id"] not in rows:
                raise UserError(
                    f"{where}: annotation {note['id']} is of image {note['image_id']}, which "
                    '"images" does not list; add the image or remove the annotation'
                )
            if note["category_id"] not in class_index:
                raise UserError(
                    f"{where}: annotation {note['id']} has category {note['category_id']}, which "
                    '"categories" of train does not list'
                )
            rows[note["image_id"]].append(note)
        counts: Counter[str] = Counter()
        photos = tuple(
            _photo(image, rows[image["id"]], folder, class_index, counts)
            for image in table["images"]
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: not COCO's json: {type(error).__name__} {error}") from error
    missing = [photo.file for photo in photos if photo.file not in names]
    if missing:
        raise UserError(f"{where}: {len(missing)} pictures are missing, the first is {missing[0]}")
    if counts:
        changes = ", ".join(f"{count} boxes {change}" for change, count in sorted(counts.items()))
        warnings.warn(f"{where}: {changes}", stacklevel=3)
    return photos


def _photo(
    image: Mapping[str, Any],
    notes: list[Mapping[str, Any]],
    folder: str,
    class_index: Mapping[int, int],
    counts: Counter[str],
) -> Photo:
    height, width = int(image["height"]), int(image["width"])
    objects = []
    for note in notes:
        left, top, wide, tall = (float(x) for x in note["bbox"])
        if not (wide > 0 and tall > 0):  # NaN too
            counts["without area were dropped"] += 1
            continue
        box = np.array([left, top, left + wide, top + tall])
        inside = np.clip(box, 0, [width, height, width, height])
        if not (inside[2:] > inside[:2]).all():
            counts["outside of their picture were dropped"] += 1
            continue
        # annotations are rounded to hundredths, so that sums may end a little outside
        if np.abs(inside - box).max() > 0.5:
            counts["were cut at the edge of their picture"] += 1
        area = float(note.get("area", wide * tall))
        crowd = bool(note.get("iscrowd", 0))
        objects.append((inside, class_index[note["category_id"]], crowd, area))
    box, label, crowd, area = zip(*objects, strict=True) if objects else ((), (), (), ())
    return Photo(
        file=folder + str(image["file_name"]),
        size=(height, width),
        box=np.array(box, np.float32).reshape(-1, 4),
        label=np.array(label, np.int32),
        crowd=np.array(crowd, bool),
        area=np.array(area, np.float32),
    )


def _names(path: str) -> frozenset[str]:
    if Path(path).is_dir():
        root = Path(path)
        return frozenset(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
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
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"data.path={path}: {file} cannot be read: {error}") from error
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
