"""Raw images as one array."""

import numpy as np
import pytest

from kdjax.data import stack_images
from kdjax.data.images.decode import View, fit
from kdjax.errors import UserError


def test_images_are_resized_as_in_evaluation():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, 12, 3), np.uint8) for side in (9, 16)]
    stacked = stack_images(images, (8, 8, 3), scale=255, crop=0.8)
    assert stacked.shape == (2, 8, 8, 3)
    assert stacked.dtype == np.uint8
    for row, image in zip(stacked, images, strict=True):
        np.testing.assert_array_equal(row, fit(image, 3, View(8, 0.8)))


def test_grey_images_and_floats_as_stored():
    images = np.ones((2, 4, 4))
    stacked = stack_images(images, (4, 4, 1), scale=16, crop=None)
    assert (stacked.shape, stacked.dtype) == ((2, 4, 4, 1), np.float32)
    assert stack_images([], (4, 4, 1), scale=255, crop=None).shape == (0, 4, 4, 1)


@pytest.mark.parametrize(
    ("images", "crop", "message"),
    [
        (np.ones((1, 4, 4, 1)), None, "image 0 holds float64; give uint8 pixels"),
        (np.ones((1, 5, 4, 1), np.uint8), None, r"image 0 has shape \(5, 4, 1\), but the network"),
        (np.ones((1, 5, 4, 3), np.uint8), 1.0, "3 channels where the set has 1"),
    ],
)
def test_what_does_not_fit_is_named(images, crop, message):
    with pytest.raises(UserError, match=message):
        stack_images(images, (4, 4, 1), scale=255, crop=crop)
