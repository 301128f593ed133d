"""Images in .tar shards in WebDataset's layout: KEY.jpg beside KEY.cls, or KEY.json with a label.

A member is read at its place in its shard, so the order of examples is that of every other set: it
depends only on (seed, step), and training can start at any step. Shards in a bucket are streamed.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data import user_cache
from kdjax.data.class_labels import number_classes
from kdjax.data.digest import lines_of_files
from kdjax.data.images.decode import View, open_picture, picture_channels
from kdjax.data.images.shards import Bucket, Storage, storage_of
from kdjax.data.images.stored import labelled_set
from kdjax.data.images.streaming import RecordSet
from kdjax.data.options import Columns
from kdjax.data.table import LABELS
from kdjax.errors import UserError

_NAMES = ("classnames.txt", "classes.txt")  # a class a line, in the order of the labels

Sample = dict[str, tuple[int, int, bytes]]  # suffix -> offset, size; content of what may be a label


class Members(NamedTuple):
    """The pictures of a split: the shard, offset and size of each, and its key for errors."""

    storage: Storage
    shards: tuple[str, ...]
    shard: np.ndarray  # int32 [n]
    offset: np.ndarray  # int64 [n]
    size: np.ndarray  # int64 [n]
    keys: tuple[str, ...]

    def content(self, row: int) -> BytesIO:
        """Return the content of a picture."""
        file = self.shards[self.shard[row]]
        return BytesIO(self.storage.read(file, int(self.offset[row]), int(self.size[row])))

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
        path: `data.path`, a shard or a folder of shards (see `split_files.find_split_files`), on a
            disk or in a bucket.
        columns: the suffixes of pictures and labels; a label may also be a key of KEY.json.
        view: the resizing of pictures; without a size all must have the size of the first one.
        skip_unreadable: omit pictures that cannot be read, with a warning.

    Raises:
        UserError: a file that is no plain .tar, a sample without a picture or label, the errors of
            `number_classes`.
    """
    storage = storage_of(path)
    files = storage.find()
    indexed = {split: _index(storage, shards, columns) for split, shards in files.items()}
    names = {split: _class_names(storage, shards[0].parent) for split, shards in files.items()}
    values = {split: label for split, (_, label) in indexed.items()}
    labels = number_classes(f"data.path={path}", values, names)
    images = {split: members for split, (members, _) in indexed.items()}
    lines = {split: lines_of_files(shards, storage.size) for split, shards in files.items()}
    result = labelled_set(
        f"data.path={path}", images, labels, view, lines, skip_unreadable=skip_unreadable
    )
    if isinstance(storage, Bucket):  # which is too slow to be checked before a run
        return result._replace(threads=storage.threads, are_files=False)
    return result


def _index(
    storage: Storage, shards: Sequence[PurePath], columns: Columns
) -> tuple[Members, list[Any]]:
    """Return the pictures and the labels of shards, in order."""
    with ThreadPoolExecutor(storage.threads) as threads:
        tables = list(threads.map(partial(_index_shard, storage, columns), shards))
    rows = [(number, *row) for number, table in enumerate(tables) for row in table]
    if not rows:
        raise UserError(f"{shards[0]} has no samples; give shards with pictures and labels")
    shard, keys, offset, size, labels = zip(*rows, strict=True)
    numbers = (np.array(shard, np.int32), np.array(offset, np.int64), np.array(size, np.int64))
    return Members(storage, tuple(map(str, shards)), *numbers, tuple(keys)), list(labels)


def _index_shard(storage: Storage, columns: Columns, file: PurePath) -> list[list[Any]]:
    """Return key, offset and size of the picture, and label of each sample of a shard."""
    index_file = storage.index_file(file, (columns.image, columns.label))
    if index_file is not None and index_file.exists():
        return json.loads(index_file.read_bytes())
    table = []
    for key, sample in _samples(storage, file, columns.label or "cls"):
        suffix = columns.image or next((s for s in sample if f".{s}" in _suffixes()), "")
        where = f"{file}: sample {key}"
        if suffix not in sample:
            raise UserError(f"{where} has no picture; it has {', '.join(sample)}")
        table.append([key, *sample[suffix][:2], _label(sample, columns.label, where)])
    if index_file is not None:
        with suppress(OSError):  # a cache that cannot be written costs only time
            user_cache.write(index_file, json.dumps(table))
    return table


def _samples(storage: Storage, file: PurePath, label: str) -> Iterator[tuple[str, Sample]]:
    """Yield the key and the members of each sample; the members of a sample are neighbours."""
    key, sample = "", {}
    try:
        with storage.open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as shard:
            for member in shard:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if member.issym() or member.islnk():
                    raise UserError(
                        f"{file}: {member.name} is a link; write the shard with tar --dereference "
                        "--hard-dereference"
                    )
                if not member.isfile() or not stem:
                    continue
                name = f"{folder}/{stem}" if folder else stem
                if name != key and sample:
                    yield key, sample
                    sample = {}
                key = name
                content = b""
                if suffix.lower() in (label, "json"):
                    stream.seek(member.offset_data)
                    content = stream.read(member.size)
                if suffix.lower() in sample:
                    raise UserError(f"{file} holds {member.name} twice; give each sample a key")
                sample[suffix.lower()] = (member.offset_data, member.size, content)
            is_whole = _is_empty_from(stream, shard.offset)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{file} is no uncompressed .tar ({error}); write it again") from error
    if not is_whole:  # `tarfile` ends at a damaged header without an error
        raise UserError(f"{file} is truncated or damaged behind sample {key}; fetch it again")
    if sample:
        yield key, sample


def _is_empty_from(stream: BinaryIO, offset: int) -> bool:
    """Return whether the rest of an archive is a block of zeros or more, which ends a .tar."""
    stream.seek(offset)
    size = 0
    while content := stream.read(2**20):
        size += len(content)
        if content.strip(b"\0"):
            return False
    return size >= tarfile.BLOCKSIZE


def _label(sample: Sample, name: str, where: str) -> Any:
    suffix = name or "cls"
    if suffix in sample:
        return sample[suffix][2].decode("utf-8", "replace").strip()
    stored: Any = None
    if "json" in sample:
        try:
            stored = json.loads(sample["json"][2])
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


def _class_names(storage: Storage, folder: PurePath) -> tuple[str, ...] | None:
    places = [place / name for place in (folder, storage.root) for name in _NAMES]
    texts = map(storage.read_text, places)
    return next((tuple(text.strip().splitlines()) for text in texts if text is not None), None)


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    Image.init()
    return frozenset(Image.registered_extensions())
