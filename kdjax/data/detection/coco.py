"""Folders and zip files in COCO's layout: what is in them, and what is refused.

    annotations/instances_train*.json    annotations/instances_val*.json
    train*/PICTURE                       val*/PICTURE

The part after "instances_" names the folder of the pictures. In a zip all may lie in a folder.
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

from kdjax.types import UserError

__all__ = ["Photo", "Photos", "open_photo", "read_coco"]

_LAYOUT = "a folder or .zip with annotations/instances_train*.json and train*/, the same for val"


class Photo(NamedTuple):
    """One picture and its boxes, in its own pixels: (left, top, right, bottom)."""

    file: str  # inside the folder or zip
    size: tuple[int, int]  # height, width
    box: np.ndarray  # float32 [n, 4]
    label: np.ndarray  # int32 [n]
    crowd: np.ndarray  # bool [n]
    area: np.ndarray  # float32 [n], as annotated: of the mask, which COCO measures small by


class Photos(NamedTuple):
    """What `read_coco` found; `where` is for errors."""

    path: str
    where: str
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    class_names: tuple[str, ...]


def read_coco(path: str | None) -> Photos:
    """Read both splits' annotations; no picture is opened.

    Boxes are cut at the edge of their picture and those without area are dropped; both are
    counted in a warning.

    Raises:
        UserError: one line naming the file and what would be right: no such layout; a file that is
            not COCO's json; a category or a picture that an annotation names and the file does
            not; pictures that are listed twice or missing.
    """
    if not path:
        raise UserError(f"data.path is not set; coco needs {_LAYOUT}")
    if not Path(path).exists():
        raise UserError(f"data.path={path}: no such file or folder; coco needs {_LAYOUT}")
    names = _names(path)
    found: dict[str, Mapping[str, Any]] = {}
    folders = {}
    for split in ("train", "val"):
        file = _annotations(path, names, split)
        found[split] = _json(path, file)
        root = file[: file.rindex("annotations/")]
        folders[split] = root + Path(file).stem.removeprefix("instances_") + "/"
    classes = {int(c["id"]): str(c["name"]) for c in found["train"]["categories"]}
    if not classes:
        raise UserError(f"data.path={path}: the train annotations name no categories")
    number = {category: row for row, category in enumerate(sorted(classes))}
    splits = {
        split: _photos(f"data.path={path}: {split}", said, folders[split], names, number)
        for split, said in found.items()
    }
    return Photos(
        path=path,
        where=f"data.path={path}",
        class_names=tuple(classes[category] for category in number),
        **splits,
    )


def open_photo(path: str, photo: Photo) -> np.ndarray:
    """Return a picture as uint8 [height, width, 3].

    Raises:
        UserError: it cannot be decoded, or has another size than its annotations say.
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


def _photos(
    where: str,
    said: Mapping[str, Any],
    folder: str,
    names: frozenset[str],
    number: Mapping[int, int],
) -> tuple[Photo, ...]:
    rows: dict[int, list[Mapping[str, Any]]] = {}
    try:
        for image in said["images"]:
            if image["id"] in rows:
                raise UserError(f"{where}: image id {image['id']} is listed twice")
            rows[image["id"]] = []
        for note in said["annotations"]:
            if note["image_id"] not in rows:
                raise UserError(
                    f"{where}: annotation {note['id']} is of image {note['image_id']}, which "
                    '"images" does not list; add the image or remove the annotation'
                )
            if note["category_id"] not in number:
                raise UserError(
                    f"{where}: annotation {note['id']} has category {note['category_id']}, which "
                    '"categories" of train does not list'
                )
            rows[note["image_id"]].append(note)
        counts: Counter[str] = Counter()
        photos = tuple(
            _photo(image, rows[image["id"]], folder, number, counts) for image in said["images"]
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: not COCO's json: {type(error).__name__} {error}") from error
    missing = [photo.file for photo in photos if photo.file not in names]
    if missing:
        raise UserError(f"{where}: {len(missing)} pictures are missing, the first is {missing[0]}")
    if counts:
        told = ", ".join(f"{count} boxes {what}" for what, count in sorted(counts.items()))
        warnings.warn(f"{where}: {told}", stacklevel=3)
    return photos


def _photo(
    image: Mapping[str, Any],
    notes: list[Mapping[str, Any]],
    folder: str,
    number: Mapping[int, int],
    counts: Counter[str],
) -> Photo:
    height, width = int(image["height"]), int(image["width"])
    kept = []
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
        kept.append((inside, number[note["category_id"]], bool(note.get("iscrowd", 0)), area))
    box, label, crowd, area = zip(*kept, strict=True) if kept else ((), (), (), ())
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
        raise UserError(f"data.path={path}: no whole zip file; coco needs {_LAYOUT}") from error


def _annotations(path: str, names: frozenset[str], split: str) -> str:
    found = sorted(
        name
        for name in names
        if Path(name).match(f"annotations/instances_{split}*.json") and "__MACOSX" not in name
    )
    if len(found) != 1:
        told = "no" if not found else "several"
        raise UserError(
            f"data.path={path}: {told} annotations/instances_{split}*.json; coco needs {_LAYOUT}"
        )
    return found[0]


def _json(path: str, file: str) -> Mapping[str, Any]:
    try:
        said = json.loads(_read(path, file))
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"data.path={path}: {file} cannot be read: {error}") from error
    lacking = [key for key in ("images", "annotations", "categories") if key not in said]
    if lacking:
        raise UserError(f"data.path={path}: {file} lacks {', '.join(lacking)}: not COCO's json")
    return said


def _read(path: str, file: str) -> bytes:
    if Path(path).is_dir():
        return (Path(path) / file).read_bytes()
    return _archive(path).read(file)


@lru_cache(maxsize=4)
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # reads are locked: threads may share it
