"""Conversion of picture files and decoded pictures of any size to arrays of the set's shape."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdjax.errors import UserError

_GREY_MODES = ("1", "L", "LA")


class View(NamedTuple):
    """The resizing of the pictures of a set.

    `size`: height and width of the result, None for pictures that have one size already. `crop`:
    that size over the shorter side before the central crop. `canvas`: side of the square to which
    uncropped training pictures are resized for `resized_crop`; None: training pictures are cropped.
    """

    size: int | None = None
    crop: float = 1.0
    canvas: int | None = None


def picture_channels(path: Path) -> int:
    """Return 1 for a grey picture and 3 for any other, from its header alone."""
    try:
        with Image.open(path) as picture:
            return 1 if picture.mode in _GREY_MODES else 3
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture; replace or remove it") from error


def open_picture(path: Path, channels: int) -> np.ndarray:
    """Return a picture file as uint8 [height, width, channels]; 1 is grey, 3 is RGB.

    Raises:
        UserError: on a file that is not a picture, and on a colour picture in a grey set.
    """
    try:
        with Image.open(path) as picture:
            if channels == 1 and picture.mode not in _GREY_MODES:
                raise UserError(
                    f"{path} is a {picture.mode} picture in a set of grey ones; convert it"
                )
            array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture; replace or remove it") from error
    return array.reshape(*array.shape[:2], channels)


def fit(image: np.ndarray, channels: int, view: View) -> np.ndarray:
    """Return uint8 [height, width, channels]: shorter side to size / crop, then the centre.

    Grey pictures are repeated over `channels`; a view without size keeps height and width.

    Raises:
        UserError: on a number of channels that cannot be converted to `channels`.
    """
    image = _with_channels(image, channels)
    if view.size is None:
        return image
    size, shorter = view.size, round(view.size / view.crop)
    height, width = image.shape[:2]
    if height == width == size == shorter:
        return image
    ratio = shorter / min(height, width)
    resized = (max(shorter, round(width * ratio)), max(shorter, round(height * ratio)))
    picture = _picture(image).resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    cropped = picture.crop((left, top, left + size, top + size))
    return np.asarray(cropped).reshape(size, size, channels)


def squeeze(image: np.ndarray, channels: int, canvas: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return an uncropped picture as uint8 [canvas, canvas, channels], and its (height, width).

    Raises:
        UserError: on a number of channels that cannot be converted to `channels`.
    """
    image = _with_channels(image, channels)
    height, width = image.shape[:2]
    if (height, width) != (canvas, canvas):
        squeezed = _picture(image).resize((canvas, canvas), Image.Resampling.BILINEAR)
        image = np.asarray(squeezed).reshape(canvas, canvas, channels)
    return image, (height, width)


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[-1] == 1 and channels > 1:
        image = np.repeat(image, channels, axis=-1)
    if image.shape[-1] != channels:
        raise UserError(f"an image has {image.shape[-1]} channels where the set has {channels}")
    return image


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
