"""Images in .tar shards in WebDataset's layout: KEY.jpg beside KEY.cls, or KEY.json with a label.

A member is read at its place in its shard, so the order of examples is that of every other set: it
depends only on (seed, step), and training can start at any step.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data.class_labels import number_classes
from kdjax.data.images.decode import View, open_picture, picture_channels
from kdjax.data.images.stored import labelled_set
from kdjax.data.images.streaming import RecordSet
from kdjax.data.options import Columns
from kdjax.data.split_files import find_split_files
from kdjax.data.table import LABELS
from kdjax.errors import UserError

_EXPECTED = "a folder of .tar shards: train-*.tar and perhaps val-*.tar, test-*.tar"
_NAMES = ("classnames.txt", "classes.txt")  # a class a line, in the order of the labels
_OPEN_FILES = 128  # shards that a process holds open

Sample = dict[str, tuple[int, int]]  # suffix of a member -> its offset and size


class Members(NamedTuple):
    """The pictures of a split: the shard, offset and size of each, and its key for errors."""

    shards: tuple[str, ...]
    shard: np.ndarray  # int32 [n]
    offset: np.ndarray  # int64 [n]
    size: np.ndarray  # int64 [n]
    keys: tuple[str, ...]

    def content(self, row: int) -> BytesIO:
        """Return the content of a picture."""
        file = self.shards[self.shard[row]]
        return BytesIO(_read(file, int(self.offset[row]), int(self.size[row])))

    def where(self, row: int) -> str:
        """Return the place of a picture, for errors."""
        return f"{self.shards[self.shard[row]]}: sample {self.keys[row]}"

    def channels(self, row: int) -> int:
        """Return the number of channels of a picture."""
        return picture_channels(partial(self.content, row), self.where(row))

    def get(self, row: int, channels: int) -> np.ndarray:
        """Return a decoded picture, uint8 [height, width, channels]."""
        return open_picture(partial(self.content, row), channels, name=self.where(row))


def webdataset(
    path: str | None, columns: Columns, view: View, *, skip_unreadable: bool = False
) -> RecordSet:
    """Return the set in .tar shards.

    Args:
        path: `data.path`, a shard or a folder of shards (see `split_files.find_split_files`).
        columns: the suffixes of pictures and labels; a label may also be a key of KEY.json.
        view: the resizing of pictures; without a size all must have the size of the first one.
        skip_unreadable: omit pictures that cannot be read, with a warning.

    Raises:
        UserError: a file that is no plain .tar, a sample without a picture or label, the errors of
            `number_classes`.
    """
    files = find_split_files(path, (".tar",), _EXPECTED)
    indexed = {split: _index(shards, columns) for split, shards in files.items()}
    names = {split: _class_names(shards[0].parent, path) for split, shards in files.items()}
    values = {split: label for split, (_, label) in indexed.items()}
    labels = number_classes(f"data.path={path}", values, names)
    images = {split: members for split, (members, _) in indexed.items()}
    return labelled_set(
        f"data.path={path}", images, labels, view, files, skip_unreadable=skip_unreadable
    )


def _index(shards: Sequence[Path], columns: Columns) -> tuple[Members, list[Any]]:
    """Return the pictures and the labels of shards, in order."""
    shard, places, keys, labels = [], [], [], []
    for number, file in enumerate(shards):
        for key, sample in _samples(file):
            suffix = columns.image or next((s for s in sample if f".{s}" in _suffixes()), "")
            where = f"{file}: sample {key}"
            if suffix not in sample:
                raise UserError(f"{where} has no picture; it has {', '.join(sample)}")
            labels.append(_label(str(file), sample, columns.label, where))
            shard.append(number)
            places.append(sample[suffix])
            keys.append(key)
    if not keys:
        raise UserError(f"{shards[0]} has no samples; give shards with pictures and labels")
    offset, size = np.array(places, np.int64).T
    files = tuple(map(str, shards))
    return Members(files, np.array(shard, np.int32), offset, size, tuple(keys)), labels


def _samples(file: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the key and the members of each sample; the members of a sample are neighbours."""
    key, sample = "", {}
    try:
        with tarfile.open(file, "r:") as shard:
            for member in shard:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                name = f"{folder}/{stem}" if folder else stem
                if name != key and sample:
                    yield key, sample
                    sample = {}
                key = name
                sample[suffix.lower()] = (member.offset_data, member.size)
            end = shard.offset
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{file} is no uncompressed .tar ({error}); write it again") from error
    if end > file.stat().st_size:
        raise UserError(f"{file} ends within sample {key}; it is truncated: fetch it again")
    if sample:
        yield key, sample


def _label(file: str, sample: Sample, name: str, where: str) -> Any:
    suffix = name or "cls"
    if suffix in sample:
        return _read(file, *sample[suffix]).decode("utf-8", "replace").strip()
    stored: Any = None
    if "json" in sample:
        try:
            stored = json.loads(_read(file, *sample["json"]))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: its .json cannot be read ({error})") from error
    known = stored if isinstance(stored, Mapping) else {}
    key = next((each for each in ((name,) if name else LABELS) if each in known), None)
    if key is None:
        keys = f", whose .json has {', '.join(known) or 'no keys'}" if "json" in sample else ""
        raise UserError(
            f"{where} has no label; it has {', '.join(sample)}{keys}; give KEY.cls, or KEY.json "
            "with a label, or set data.columns.label"
        )
    return known[key]


def _class_names(folder: Path, path: str | None) -> tuple[str, ...] | None:
    for home in dict.fromkeys((folder, Path(path or "").expanduser())):
        for name in _NAMES:
            if (home / name).is_file():
                return tuple((home / name).read_text(encoding="utf-8").strip().splitlines())
    return None


@lru_cache(maxsize=_OPEN_FILES)
def _open(file: str) -> BinaryIO:
    return Path(file).open("rb", buffering=0)


def _read(file: str, offset: int, size: int) -> bytes:
    shard = _open(file)  # stays open while it has a name
    return os.pread(shard.fileno(), size, offset)  # needs no lock between threads


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    Image.init()
    return frozenset(Image.registered_extensions())
