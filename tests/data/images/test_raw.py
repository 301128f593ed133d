"""Raw images as one array."""

import numpy as np
import pytest
from PIL import Image

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


def test_pictures_by_path(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(image).quantize(16).save(tmp_path / "palette.png")
    stacked = stack_images([tmp_path / "palette.png"], (8, 8, 3), scale=255, crop=1.0)
    colours = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    np.testing.assert_array_equal(stacked[0], fit(colours, 3, View(8)))


def test_one_image_or_integers_for_a_network_of_floats_are_refused():
    with pytest.raises(UserError, match=r"shape \(8, 9, 3\) is one image; give a list"):
        stack_images(np.zeros((8, 9, 3), np.uint8), (8, 8, 3), scale=255, crop=1.0)
    with pytest.raises(UserError, match="image 0 holds uint8; the network takes floats"):
        stack_images(np.zeros((1, 8, 8, 3), np.uint8), (8, 8, 3), scale=1.0, crop=None)
    with pytest.raises(UserError, match=r"shape \(8, 9, 1\) is one image; give a list"):
        stack_images(np.zeros((8, 9, 1), np.uint8), (8, 8, 1), scale=255, crop=1.0)
    with pytest.raises(UserError, match="image 1 holds NaN or inf"):
        stack_images(np.array([[[0.0]], [[np.nan]]]), (1, 1, 1), scale=1.0, crop=None)


def test_pictures_of_pillow_are_read_like_their_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    path = tmp_path / "palette.png"
    Image.fromarray(image).quantize(16).save(path)
    from_file, from_memory = (
        stack_images([picture], (8, 8, 3), scale=255, crop=1.0)
        for picture in (path, Image.open(path))
    )
    np.testing.assert_array_equal(from_file, from_memory)
