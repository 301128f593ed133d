"""Pictures of every depth, mode and rotation as uint8, against numpy's own arithmetic."""

from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kdjax.data.images.decode import find_unreadable, open_picture, picture_channels
from kdjax.errors import UserError

ORIENTATION = 0x0112
COLORS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13
DEEP = np.array([[0, 256, 257], [1000, 40_000, 65_535]], np.uint16)
# orientation -> the picture as it is shown (EXIF 2.3, table 6)
SHOWN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def write(path, array, orientation=1, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(array).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_sixteen_bits_are_scaled(name, tmp_path):
    Image.fromarray(DEEP).save(tmp_path / name)
    assert picture_channels(tmp_path / name) == 1
    image = open_picture(tmp_path / name, 1)
    assert image[..., 0].tolist() == [[0, 1, 1], [4, 156, 255]]
    assert np.array_equal(open_picture(tmp_path / name, 3), np.repeat(image, 3, axis=-1))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_wider_grey_is_refused_by_name(kind, tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(DEEP.astype(kind)).save(path)
    with pytest.raises(UserError, match=r"a\.tif is a 32-bit grey picture.*store 8 or 16 bits"):
        open_picture(path, 1)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("array", [COLORS, DEEP], ids=["rgb", "16 bits"])
def test_rotation_is_obeyed(array, orientation, tmp_path):
    path = write(tmp_path / "a.png", array, orientation)
    plain = open_picture(write(tmp_path / "b.png", array), 3)
    shown = SHOWN[orientation](plain)
    assert np.array_equal(open_picture(path, 3), shown)
    stored = open_picture(path, 3, size=(2, 3))  # of the annotations: only transposed ones tell
    assert np.array_equal(stored, plain if orientation > 4 else shown)
    if orientation > 4:
        assert np.array_equal(open_picture(path, 3, size=(3, 2)), shown)
    with pytest.raises(UserError, match=r"annotations are of 4x4; boxes would not fit"):
        open_picture(path, 3, size=(4, 4))


def test_alpha_is_dropped(tmp_path):
    alpha = np.array([[0, 1, 255], [7, 0, 128]], np.uint8)[..., None]
    Image.fromarray(np.concatenate([COLORS, alpha], axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(open_picture(tmp_path / "a.png", 3), COLORS)
    grey = COLORS[..., :1]
    Image.fromarray(np.concatenate([grey, alpha], axis=-1)).save(tmp_path / "b.png")
    assert np.array_equal(open_picture(tmp_path / "b.png", 1), grey)


def test_the_first_frame_is_read(tmp_path):
    frames = [Image.fromarray(array) for array in (COLORS, 255 - COLORS)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert np.array_equal(open_picture(tmp_path / "a.tif", 3), COLORS)


def content(image_format, change=lambda raw: raw, mode="RGB"):
    out = BytesIO()
    Image.new(mode, (40, 40), 7).save(out, image_format)
    return change(out.getvalue())


BROKEN = {
    "empty": b"",
    "text": b"no picture",
    "png cut": content("PNG", lambda raw: raw[:-40]),
    "png flipped": content("PNG", lambda raw: raw[:50] + bytes([raw[50] ^ 255]) + raw[51:]),
    "jpeg cut": content("JPEG", lambda raw: raw[:-40]),
    "webp cut": content("WEBP", lambda raw: raw[:-12]),
    "a program in PostScript": content("EPS"),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_broken_pictures_are_one_line(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", None)  # Pillow's way to run Ghostscript
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.png is not a readable picture") as caught:
        open_picture(path, 3)
    assert "\n" not in str(caught.value)
    paths = [path, write(tmp_path / "b.png", COLORS)]
    assert list(find_unreadable(partial(open_picture, channels=3), paths)) == [path]
