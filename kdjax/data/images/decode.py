"""Conversion of picture files, or decoded pictures of any size, to arrays of the set's shape."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from kdjax.errors import CORRUPT_FILE_ERRORS, RunError, UserError

T = TypeVar("T")
File = Path | Callable[[], BytesIO]  # a path, or a function that returns the content

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_GREY_MODES = ("1", "L", "LA", "La", *_WIDE_MODES)
_USUAL_FORMATS = ("JPEG", "PNG")  # their files begin with bytes that no other format has
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode "I" goes up to 65535


class View(NamedTuple):
    """The resizing of the pictures of a set.

    `size`: height and width of the result, None for pictures of equal size. `crop`: that size over
    the shorter side before the central crop. `canvas`: side of the square to which uncropped
    training pictures are resized for `resized_crop`; None: training pictures are cropped.
    """

    size: int | None = None
    crop: float = 1.0
    canvas: int | None = None


@lru_cache(maxsize=1)
def picture_formats() -> tuple[str, ...]:
    """Return the formats that Pillow reads, without EPS, which runs a program, and stubs.

    Pillow tries them in this order, so the usual ones are first.
    """
    Image.init()
    formats = Image.OPEN.keys() - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF", *_USUAL_FORMATS}
    return (*_USUAL_FORMATS, *sorted(formats))


def picture_channels(file: File, name: str = "") -> int:
    """Return 1 for a grey picture and 3 for any other, from its header alone.

    Args:
        file: the picture.
        name: the name of the file in errors; "" means its path.

    Raises:
        UserError: on a file that is not a picture.
    """
    with _opened(file, name or str(file)) as picture:
        return 1 if picture.mode in _GREY_MODES else 3


def open_picture(
    file: File, channels: int, *, name: str = "", size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return a picture as uint8 [height, width, channels]; 1 is grey, 3 is RGB.

    The rotation in the EXIF data is applied. 16-bit grey is divided by 257. An alpha channel is
    dropped: the colours below it are used. Of several frames or pages the first is read.

    Args:
        file: the picture.
        channels: 1 or 3.
        name: the name of the file in errors; "" means its path.
        size: the expected height and width. If only the stored pixels have this size, EXIF's
            rotation is not applied.

    Raises:
        UserError: on a file that is not a picture, a colour picture in a grey set, grey of more
            than 16 bits, whose range is unknown, and another size.
    """
    name = name or str(file)
    with _opened(file, name) as stored:
        array = to_array(stored, channels, name, size=size)
    if size is not None and array.shape[:2] != size:
        raise UserError(
            f"{name} is {array.shape[1]}x{array.shape[0]}, but its annotations are of "
            f"{size[1]}x{size[0]}; boxes would not fit"
        )
    return array


def to_array(
    stored: Image.Image, channels: int, name: str, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return an open picture as uint8 [height, width, channels]; see `open_picture`."""
    if channels == 1 and stored.mode not in _GREY_MODES:
        raise UserError(f"{name} is a {stored.mode} picture in a set of grey ones; convert it")
    if stored.mode == "F" or (stored.mode == "I" and stored.format not in _SIXTEEN_BITS):
        raise UserError(
            f"{name} is a 32-bit grey picture, whose range is unknown; store 8 or 16 bits"
        )
    picture = ImageOps.exif_transpose(stored)
    if size is not None and picture.size[::-1] != size == stored.size[::-1]:
        picture = stored
    if picture.mode in _WIDE_MODES:
        wide = np.asarray(picture)
        if 0 < wide.max() < 4096:
            warnings.warn(
                "16-bit pictures that use fewer than 4,096 of 65,536 levels keep at most 16 of "
                "256; store 8 bits, or the full range",
                stacklevel=2,
            )
        picture = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


@contextmanager
def _opened(file: File, name: str) -> Iterator[Image.Image]:
    try:
        content = file if isinstance(file, Path) else file()
        with Image.open(content, formats=picture_formats()) as picture:
            yield picture
    except (UserError, RunError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} has more pixels than Pillow reads; store it smaller") from error
    except (*CORRUPT_FILE_ERRORS, SyntaxError) as error:
        raise UserError(
            f"{name} is not a readable picture; replace or remove it, or set data.unreadable=skip"
        ) from error


def find_unreadable(read: Callable[[T], object], items: Iterable[T]) -> dict[T, UserError]:
    """Read every item, in threads, and return the unreadable ones, with the errors."""

    def refusal(item: T) -> UserError | None:
        try:
            read(item)
        except UserError as error:
            return error
        return None

    items = list(items)
    with ThreadPoolExecutor() as threads:
        errors = threads.map(refusal, items)
        return {item: error for item, error in zip(items, errors, strict=True) if error}


def check_readable(read: Callable[[T], object], items: Iterable[T]) -> None:
    """Raise the first error of `find_unreadable`, with the number of errors."""
    errors = find_unreadable(read, items)
    for error in errors.values():
        raise UserError(f"{error} ({len(errors)} such pictures)")


def drop_unreadable(read: Callable[[str], object], names: Iterable[str], where: str) -> set[str]:
    """Return the unreadable names, and warn about them; `where` is the name of the set."""
    names = sorted(find_unreadable(read, names))
    if names:
        count = f"{len(names)} unreadable pictures were skipped"
        warnings.warn(f"{where}: {count}: {', '.join(names[:5])}", stacklevel=3)
    return set(names)


def fit(image: np.ndarray, channels: int, view: View) -> np.ndarray:
    """Return uint8 [height, width, channels]: shorter side to size / crop, then the centre.

    Grey pictures are repeated over `channels`; a view without size does not resize.

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
