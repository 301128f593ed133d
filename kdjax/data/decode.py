"""From a picture file, or a decoded picture of any size, to an array of the set's shape."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdjax.types import UserError

__all__ = ["fit", "open_picture", "picture_channels"]

_GREY_MODES = ("1", "L", "LA")


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
        UserError: on a file that is no picture, and on a colour picture where grey is wanted.
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


def fit(image: np.ndarray, channels: int, size: int | None) -> np.ndarray:
    """Return uint8 [height, width, channels]: the shorter side resized to `size`, centre kept.

    Grey pictures are repeated over `channels`; `size` None leaves height and width alone.

    Raises:
        UserError: on a number of channels that cannot be brought to `channels`.
    """
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[-1] == 1 and channels > 1:
        image = np.repeat(image, channels, axis=-1)
    if image.shape[-1] != channels:
        raise UserError(f"an image has {image.shape[-1]} channels where the set has {channels}")
    if size is None or image.shape[:2] == (size, size):
        return image
    height, width = image.shape[:2]
    ratio = size / min(height, width)
    resized = (max(size, round(width * ratio)), max(size, round(height * ratio)))
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    picture = picture.resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    cropped = picture.crop((left, top, left + size, top + size))
    return np.asarray(cropped).reshape(size, size, channels)
