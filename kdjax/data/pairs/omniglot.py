"""Drawings of characters: alphabets, their characters, and several drawings of each.

Omniglot from a file or from tfds, or digits as the one alphabet of every tile. What becomes of
them is in `pairs`.
"""

from typing import Any, NamedTuple

import numpy as np

from kdjax.data.images import readers
from kdjax.data.images.tfds import open_split
from kdjax.errors import CORRUPT_FILE_ERRORS
from kdjax.types import UserError

__all__ = ["Drawings", "character_rows", "digits", "omniglot", "resized", "shrunk"]

FILE_KEYS = ("images_28", "alphabet", "character")
SIDE = 28  # pixels to which tfds' 105 x 105 are brought


class Drawings(NamedTuple):
    """Drawings uint8 [n, side, side], ink bright; `character` int [n] counts over all alphabets.

    `alphabets`: the characters of each, the largest alphabet first. `scale`: the brightest pixel.
    """

    where: str
    image: np.ndarray
    character: np.ndarray
    alphabets: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    scale: float = 255.0


def omniglot(path: str | None) -> Drawings:
    """Read Omniglot from an .npz, or a set that tfds has prepared.

    Args:
        path: a file with `images_28` uint8 [n, 28, 28], `alphabet` [n] and `character` [n] (ids
            that are unique over alphabets); or tfds's data_dir, None being its default.

    Raises:
        UserError: no such file or set, keys that are missing, sizes that differ.
    """
    if path is not None and path.endswith(".npz"):
        return _from_file(path)
    try:
        splits = [open_split("omniglot", path, split) for split in ("train", "test")]
    except UserError as error:
        raise UserError(
            f"{error}; or set data.path to an .npz with {', '.join(FILE_KEYS)}, or "
            "data.name=pairs_digits, which needs no file"
        ) from error
    rows = [row for split in splits for row in (split[i] for i in range(len(split)))]
    image = np.stack([resized(255 - np.asarray(row["image"])[..., 0], SIDE) for row in rows])
    alphabet = np.array([int(row["alphabet"]) for row in rows])
    label = np.array([int(row["label"]) for row in rows])
    return _grouped("omniglot", image, alphabet, label, {})


def digits(path: str | None, alphabets: int) -> Drawings:
    """Take the ten digits for every alphabet: scikit-learn's, or MNIST's from an .npz.

    Args:
        path: None, or a file with x_train and y_train.
        alphabets: how many times.

    Raises:
        UserError: as `readers.npz`; pictures in colour.
    """
    found = readers.digits() if path is None else readers.npz(path, None, needs_test=False)
    image, label = found.train
    if image.shape[-1] != 1:
        raise UserError(f"{found.where}: images have {image.shape[-1]} channels; drawings have one")
    characters = np.unique(label)
    names = tuple(f"{found.where} {number}" for number in range(alphabets))
    pixels = image[..., 0].astype(np.uint8)
    return Drawings(found.where, pixels, label, (characters,) * alphabets, names, found.scale)


def _from_file(path: str) -> Drawings:
    try:
        with np.load(path) as file:
            lacking = [key for key in FILE_KEYS if key not in file]
            if lacking:
                raise UserError(f"{path}: has no {lacking[0]}; it needs {', '.join(FILE_KEYS)}")
            image, alphabet, character = (np.asarray(file[key]) for key in FILE_KEYS)
            said = file.get("alphabet_names", ())
    except CORRUPT_FILE_ERRORS as error:
        raise UserError(f"data.path is {path}, which cannot be read: {error}") from error
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[1] != image.shape[2]:
        raise UserError(
            f"{path}: images_28 is {image.dtype} {image.shape}; it must be uint8 [n, side, side]"
        )
    for name, values in (("alphabet", alphabet), ("character", character)):
        if values.shape != image.shape[:1]:
            raise UserError(f"{path}: {name} has shape {values.shape}, images_28 {image.shape}")
    names = {row: bytes(name).decode() for row, name in enumerate(said)}
    return _grouped(path, image, alphabet.astype(int), character.astype(int), names)


def _grouped(
    where: str, image: np.ndarray, alphabet: np.ndarray, character: np.ndarray, names: dict
) -> Drawings:
    groups = {int(a): np.unique(character[alphabet == a]) for a in np.unique(alphabet)}
    if sum(map(len, groups.values())) != len(np.unique(character)):
        raise UserError(f"{where}: a character stands in two alphabets; ids must be unique")
    order = sorted(groups, key=lambda a: (-len(groups[a]), a))
    return Drawings(
        where,
        image,
        character,
        tuple(groups[a] for a in order),
        tuple(names.get(a, f"alphabet {a}") for a in order),
    )


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    """Bring a picture uint8 [height, width(, channel)] to side x side, averaging over areas."""
    from PIL import Image

    made = Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)
    return np.asarray(made, np.uint8)


def shrunk(image: np.ndarray, side: int | None, where: str) -> np.ndarray:
    """Average square windows of drawings [n, side, side] down to a side that divides theirs.

    Raises:
        UserError: it does not.
    """
    whole = image.shape[1]
    if side is None or side == whole:
        return image
    if side < 1 or whole % side:
        raise UserError(
            f"data.tile_size is {side}; it must divide the {whole} pixels of a drawing of {where}"
        )
    step = whole // side
    windows = image.reshape(len(image), side, step, side, step).astype(np.float32)
    return np.rint(windows.mean((2, 4))).astype(np.uint8)


def character_rows(found: Drawings, characters: np.ndarray) -> list[np.ndarray]:
    """The rows of each character's drawings, in the order of the set (of drawers)."""
    order: Any = np.argsort(found.character, kind="stable")
    label = found.character[order]
    starts, ends = (np.searchsorted(label, characters, side=side) for side in ("left", "right"))
    return [order[a:b] for a, b in zip(starts, ends, strict=True)]
