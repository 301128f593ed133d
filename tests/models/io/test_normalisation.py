"""The normalisation of a network's training images beside that of the data."""

import json

import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.models.io.export import check_normalised
from kdjax.models.io.huggingface_folder import read_normalisation, write_normalisation
from kdjax.types import Spec

BYTES = Spec((8, 8, 3), 2, ("a", "b"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0)
HALVES = BYTES._replace(mean=(0.5,) * 3, std=(0.5,) * 3)
PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "scale": 1.0}


def in_bytes(spec):
    """Return a spec of images of floats from 0 to 255."""
    mean, std = (tuple(255 * x for x in values) for values in (spec.mean, spec.std))
    return spec._replace(mean=mean, std=std, scale=1.0)


@pytest.mark.parametrize(
    ("description", "spec"),
    [
        ({"mean": BYTES.mean, "std": BYTES.std, "scale": 255.0}, BYTES),
        ({"mean": BYTES.mean, "std": BYTES.std, "scale": 1.0}, BYTES),  # trained on floats 0 to 1
        (PIXELS, BYTES),
        (PIXELS, in_bytes(BYTES)),
        ({"mean": BYTES.mean, "std": BYTES.std, "scale": 255.0}, in_bytes(BYTES)),
        ({"mean": [1.0] * 3, "std": [1.0] * 3, "scale": 127.5}, HALVES),
        ({"mean": [0.5], "std": [0.5], "scale": 255.0}, HALVES),  # of any number of channels
        ({"mean": [0.5] * 3, "std": [0.5] * 3, "scale": 16.0}, HALVES),  # digits
    ],
)
def test_equal_normalisations_in_other_units(description, spec):
    check_normalised("teacher", description, spec)


def test_the_error_names_values_in_the_units_of_the_data():
    other = BYTES._replace(mean=(0.5,) * 3)
    says = r"set data.mean=\(0.485,0.456,0.406,\) and data.std=\(0.229,0.224,0.225,\)"
    with pytest.raises(UserError, match=says):
        check_normalised("teacher", PIXELS, other)
    with pytest.raises(UserError, match=r"set data.mean=\(123.7,116.3,103.5,\)"):
        check_normalised("teacher", PIXELS, in_bytes(other))
    with pytest.raises(UserError, match="takes images of 3 channels, but the data has 1"):
        check_normalised("teacher", PIXELS, BYTES._replace(mean=(0.5,), std=(0.5,)))


def test_a_folder_of_hugging_face(tmp_path):
    write_normalisation(tmp_path, BYTES, 0.875)
    stored = read_normalisation(tmp_path)
    np.testing.assert_allclose([*stored["mean"], stored["scale"]], [*BYTES.mean, 255])
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["size"] == {"shortest_edge": 9}
    assert settings["crop_size"] == {"height": 8, "width": 8}
    for change, expected in (
        ({"do_normalize": False}, ([0.0], [1.0], 255)),
        ({"do_rescale": False}, ([*BYTES.mean], [*BYTES.std], 1)),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | change))
        stored = read_normalisation(tmp_path)
        assert (stored["mean"], stored["std"]) == expected[:2]
        assert stored["scale"] == pytest.approx(expected[2])
