"""Files and sources shared by the data tests; a module, so that grain's workers can import it."""

import gzip
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from kdjax import data
from kdjax.data.images.streaming import Records, RecordSet
from kdjax.errors import UserError

SHARED = Path(__file__).parents[2] / "../shared/data"


def options(kind, **keys):
    """Return the options of the data, batches and splits from a config's flat keys."""
    kinds = (kind, data.BatchOptions, data.SplitOptions)
    names = [{field.name for field in fields(each)} for each in kinds]
    assert keys.keys() <= set.union(*names)
    return [
        each(**{name: keys[name] for name in known & keys.keys()})
        for each, known in zip(kinds, names, strict=True)
    ]


def load(name, **keys):
    return data.load(name, *options(data.ImageOptions, **keys))


def arrays(n_train=40, n_test=13, classes=4, shape=(6, 5, 3), dtype=np.uint8):
    rng = np.random.default_rng(0)

    def images(n):
        values = rng.integers(0, 256, (n, *shape))
        return values.astype(dtype) if dtype == np.uint8 else (values / 255).astype(dtype)

    return {
        "x_train": images(n_train),
        "y_train": np.arange(n_train) % classes,
        "x_test": images(n_test),
        "y_test": np.arange(n_test) % classes,
    }


def write_npz(path: Path, drop=(), **changes) -> str:
    contents = {**arrays(), **changes}
    np.savez(path, **{key: value for key, value in contents.items() if key not in drop})
    return str(path)


def write_idx(folder: Path, zipped: bool) -> str:
    pixels = arrays(shape=(6, 5))
    for split, name in (("train", "train"), ("test", "t10k")):
        images, labels = pixels[f"x_{split}"], pixels[f"y_{split}"].astype(np.uint8)
        for array, kind, magic in ((images, "images-idx3", 0x803), (labels, "labels-idx1", 0x801)):
            head = b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape))
            raw = head + array.tobytes()
            file = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(raw) if zipped else raw)
    return str(folder)


def write_pictures(root: Path, names=("ant", "bee", "cat"), count=6, size=(8, 8), mode="RGB"):
    rng = np.random.default_rng(1)
    channels = {"RGB": 3, "L": 1}[mode]
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
            pixels[0, 0] = index * 10 + number  # identifies the image
            picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
            picture.save(root / name / f"{number}.png")


def example(row: int):
    """Return an image that encodes its row, with label row % 3."""
    return np.full((4, 4, 3), row, np.uint8), row % 3


def label_out_of_range(row: int):
    return np.zeros((4, 4, 3), np.uint8), 3 if row == 7 else 0


def records(train=50, test=7, labelled=True, get=example) -> RecordSet:
    label = np.arange(train) % 3 if labelled else None
    return RecordSet(
        "fake", Records(get, train, label), Records(example, test), None, (4, 4, 3), ("a", "b", "c")
    )


def fail_from(first: int, row: int):
    if row >= first:
        raise UserError(f"example {row} is bad")
    return {"id": np.int32(row)}
