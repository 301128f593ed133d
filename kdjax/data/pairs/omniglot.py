"""Drawings of characters: alphabets, their characters, and several drawings of each.

Omniglot from a file or from tfds, or digits as the alphabet of every tile. `pairs` combines them.
"""

from typing import Any, NamedTuple

import numpy as np

from kdjax.data.images import readers
from kdjax.data.images.tfds import open_split
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError

FILE_KEYS = ("images_28", "alphabet", "character")
SIDE = 28  # pixels; tfds' 105 x 105 are reduced to this


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
        UserError: no such file or set, missing keys, different sizes.
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
    """Return the ten digits as every alphabet: scikit-learn's, or MNIST's from an .npz.

    Args:
        path: None, or a file with x_train and y_train.
        alphabets: number of them.

    Raises:
        UserError: as `readers.npz`; colour images.
    """
    image_set = readers.digits() if path is None else readers.npz(path, None, needs_test=False)
    (image, label), where = image_set.train, image_set.where
    if image.shape[-1] != 1 or image.dtype != np.uint8:
        raise UserError(
            f"{where}: images are {image.dtype} and have {image.shape[-1]} channels; drawings are "
            "uint8 and have one"
        )
    characters = np.unique(label)
    names = tuple(f"{where} {number}" for number in range(alphabets))
    return Drawings(where, image[..., 0], label, (characters,) * alphabets, names, image_set.scale)


def _from_file(path: str) -> Drawings:
    try:
        with np.load(path) as file:
            missing = [key for key in FILE_KEYS if key not in file]
            if missing:
                raise UserError(f"{path}: has no {missing[0]}; it needs {', '.join(FILE_KEYS)}")
            image, alphabet, character = (np.asarray(file[key]) for key in FILE_KEYS)
            names = file.get("alphabet_names", ())
    except CORRUPT_FILE_ERRORS as error:
        raise UserError(f"data.path is {path}, which cannot be read: {error}") from error
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[1] != image.shape[2]:
        raise UserError(
            f"{path}: images_28 is {image.dtype} {image.shape}; it must be uint8 [n, side, side]"
        )
    for name, values in (("alphabet", alphabet), ("character", character)):
        if values.shape != image.shape[:1]:
            raise UserError(f"{path}: {name} has shape {values.shape}, images_28 {image.shape}")
    alphabet_names = {
        row: str(name) if isinstance(name, str) else bytes(name).decode()
        for row, name in enumerate(names)
    }
    return _grouped(path, image, alphabet.astype(int), character.astype(int), alphabet_names)


def _grouped(
    where: str, image: np.ndarray, alphabet: np.ndarray, character: np.ndarray, names: dict
) -> Drawings:
    groups = {int(a): np.unique(character[alphabet == a]) for a in np.unique(alphabet)}
    if sum(map(len, groups.values())) != len(np.unique(character)):
        raise UserError(f"{where}: a character is in two alphabets; ids must be unique")
    order = sorted(groups, key=lambda a: (-len(groups[a]), a))
    return Drawings(
        where,
        image,
        character,
        tuple(groups[a] for a in order),
        tuple(names.get(a, f"alphabet {a}") for a in order),
    )


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    """Resize an image uint8 [height, width(, channel)] to side x side, averaging over areas."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX), np.uint8)


def shrunk(image: np.ndarray, side: int | None, where: str) -> np.ndarray:
    """Average square windows of drawings [n, size, size] to drawings [n, side, side].

    Raises:
        UserError: side does not divide size.
    """
    size = image.shape[1]
    if side is None or side == size:
        return image
    if side < 1 or size % side:
        raise UserError(
            f"data.tile_size is {side}; it must divide the {size} pixels of a drawing of {where}"
        )
    step = size // side
    windows = image.reshape(len(image), side, step, side, step).astype(np.float32)
    return np.rint(windows.mean((2, 4))).astype(np.uint8)


def character_rows(drawings: Drawings, characters: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each character's drawings in the order of the set (by writer)."""
    order: Any = np.argsort(drawings.character, kind="stable")
    label = drawings.character[order]
    starts, ends = (np.searchsorted(label, characters, side=side) for side in ("left", "right"))
    return [order[a:b] for a, b in zip(starts, ends, strict=True)]
