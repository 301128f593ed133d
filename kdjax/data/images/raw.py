"""Raw images of any size as one array of a network's shape, as evaluation resizes them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdjax.data.images.decode import View, fit, open_picture, to_array
from kdjax.errors import UserError


def stack_images(
    images: Any, shape: Sequence[int], *, scale: float, crop: float | None
) -> np.ndarray:
    """Return images as stored: uint8, or float32 of a set whose scale is not 255.

    Args:
        images: [n, height, width, channel] (or without channels, of grey images), or a list of
            [height, width, channel] of different sizes, of paths of pictures, or of Pillow's.
        shape: (height, width, channel) of the network's images.
        scale: 255 of uint8 pixels.
        crop: `View.crop`; None of a network whose images are not resized.

    Returns:
        [n, *shape].

    Raises:
        UserError: naming the image that does not fit.
    """
    kind = np.dtype(np.uint8 if scale == 255 else np.float32)
    if is_one_image(images, shape):
        raise UserError(f"an array of shape {images.shape} is one image; give a list of images")
    rows = []
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            image = open_picture(Path(image), shape[-1])
        if isinstance(image, Image.Image):
            image = to_array(image, shape[-1], f"image {number}")
        image = np.asarray(image)
        image = image[..., None] if image.ndim == 2 else image
        if kind == np.uint8 and image.dtype != np.uint8:
            raise UserError(f"image {number} holds {image.dtype}; give uint8 pixels, 0 to 255")
        if kind != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise UserError(
                f"image {number} holds {image.dtype}; the network takes floats, as in its training"
            )
        if kind != np.uint8 and not np.isfinite(image).all():
            raise UserError(f"image {number} holds NaN or inf; repair or drop it")
        if crop is not None and image.ndim == 3:
            image = fit(image, shape[-1], View(shape[0], crop))
        if image.shape != tuple(shape):
            raise UserError(
                f"image {number} has shape {image.shape}, but the network takes {tuple(shape)}"
            )
        rows.append(image.astype(kind))
    return np.stack(rows) if rows else np.zeros((0, *shape), kind)


def is_one_image(images: Any, shape: Sequence[int]) -> bool:
    """Return whether an array is [height, width, channel], not grey images [n, height, width]."""
    is_array = isinstance(images, np.ndarray) and images.ndim == 3
    return is_array and images.shape[-1] == shape[-1] and images.shape[1:] != tuple(shape[:2])
