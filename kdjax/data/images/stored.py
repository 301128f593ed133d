"""Sets of stored images with labels, of any storage that can read one image by its number."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np

from kdjax.data.class_labels import Labels
from kdjax.data.digest import digest
from kdjax.data.images.decode import View, drop_unreadable, fit
from kdjax.data.images.streaming import Records, RecordSet
from kdjax.errors import UserError


class StoredImages(Protocol):
    """The images of a split; picklable, because worker processes read them."""

    def where(self, row: int) -> str:
        """Return the place of an image, for errors."""
        ...

    def channels(self, row: int) -> int:
        """Return the number of channels of an image, without decoding it."""
        ...

    def get(self, row: int, channels: int) -> np.ndarray:
        """Return a decoded image, uint8 [height, width, channels]."""
        ...


def labelled_set(
    where: str,
    images: Mapping[str, StoredImages],
    labels: Labels,
    view: View,
    file_lines: Mapping[str, Sequence[str]],
    *,
    skip_unreadable: bool,
) -> RecordSet:
    """Return the set of stored images.

    Args:
        where: the name of the set, for errors.
        images: by split.
        labels: of all images.
        view: the resizing of images.
        file_lines: names and sizes of the files of each split, for the digest.
        skip_unreadable: omit images that cannot be read, with a warning.
    """
    train, by_split = images["train"], labels.by_split
    rows = {split: np.arange(len(label)) for split, label in by_split.items()}
    if skip_unreadable:
        rows = {split: _readable(where, each, rows[split]) for split, each in images.items()}
    classes, firsts = np.unique(by_split["train"][rows["train"]], return_index=True)
    if (lost := np.setdiff1d(by_split["train"], classes)).size:
        raise UserError(
            f"{where}: no picture of {labels.class_names[lost[0]]} in train is readable"
        )
    with ThreadPoolExecutor() as threads:
        channels = max(threads.map(train.channels, map(int, rows["train"][firsts])))
    records = {
        split: Records(
            partial(_get, each, rows[split], by_split[split], channels),
            len(rows[split]),
            by_split[split][rows[split]],
        )
        for split, each in images.items()
    }
    described: dict = {f"{split} files": lines for split, lines in file_lines.items()}
    described |= {f"{split} labels": label for split, label in by_split.items()}
    if skip_unreadable:
        described |= {f"{split} readable": each for split, each in rows.items()}
    return RecordSet(
        where=where,
        train=records["train"],
        test=records.get("test"),
        validation=records.get("validation"),
        shape=fit(records["train"].get(0)[0], channels, view).shape,
        class_names=labels.class_names,
        view=view,
        digest=digest(described),
        are_files=True,
    )


def _readable(where: str, images: StoredImages, rows: np.ndarray) -> np.ndarray:
    places = {images.where(row): row for row in map(int, rows)}
    # three channels: a colour picture in a grey set is an error, not unreadable
    dropped = drop_unreadable(lambda name: images.get(places[name], 3), places, where)
    return np.setdiff1d(rows, [places[name] for name in dropped])


def _get(
    images: StoredImages, rows: np.ndarray, label: np.ndarray, channels: int, row: int
) -> tuple[np.ndarray, int]:
    return images.get(int(rows[row]), channels), int(label[rows[row]])
