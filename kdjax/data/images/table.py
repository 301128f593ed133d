"""Images with labels in a table: encoded pictures, paths of pictures, or arrays of pixels."""

from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.class_labels import number_classes
from kdjax.data.digest import lines_of_files
from kdjax.data.images.decode import View, open_picture, picture_channels
from kdjax.data.images.stored import labelled_set
from kdjax.data.images.streaming import RecordSet
from kdjax.data.options import Columns
from kdjax.data.table import modified, read_splits, read_table, require
from kdjax.errors import UserError


class ImageColumn(NamedTuple):
    """The column of images of a split; picklable: the table is opened where it is read."""

    files: tuple[Path, ...]
    changed: tuple[int, ...]
    name: str

    def value(self, row: int) -> Any:
        """Return a stored image: a picture's content, its path, or nested lists of pixels."""
        column = read_table(self.files, self.changed).columns[self.name]
        value = column[row] if isinstance(column, list) else column[row].as_py()
        if isinstance(value, Mapping):  # how `datasets` stores a picture
            value = value.get("bytes") or value.get("path")
        return value

    def where(self, row: int) -> str:
        """Return the place of an image, for errors."""
        file, row = self._place(row)
        return f"{file}: row {row} of {self.name}"

    def _place(self, row: int) -> tuple[Path, int]:
        """Return the file that holds a row of the split, and the row in it."""
        starts = read_table(self.files, self.changed).starts
        number = bisect_right(starts, row) - 1
        return self.files[number], row - starts[number]

    def content(self, row: int) -> Path | bytes | np.ndarray:
        """Return a stored image; a relative path is below the folder of the row's file."""
        value = self.value(row)
        if isinstance(value, bytes):
            return value
        if isinstance(value, str) and value:
            return self._place(row)[0].parent / Path(value).expanduser()
        array = np.asarray(value) if isinstance(value, list) else np.zeros(0)
        array = array if array.ndim != 2 else array[..., None]
        is_image = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
        if not is_image or array.dtype.kind not in "iu" or not _are_bytes(array):
            raise UserError(
                f"{self.where(row)} is no image; a column of images holds encoded pictures, paths "
                "or pixels [height, width, channel] of 0 to 255, with 1, 3 or 4 channels"
            )
        return array.astype(np.uint8)

    def channels(self, row: int) -> int:
        """Return the number of channels of a stored image."""
        content = self.content(row)
        if isinstance(content, np.ndarray):
            return content.shape[-1]
        return picture_channels(_file(content), self.where(row))

    def get(self, row: int, channels: int) -> np.ndarray:
        """Return a decoded image, uint8 [height, width, channels]."""
        content = self.content(row)
        if isinstance(content, np.ndarray):
            return content
        return open_picture(_file(content), channels, name=self.where(row))


def image_table(
    path: str | None, columns: Columns, view: View, *, skip_unreadable: bool = False
) -> RecordSet:
    """Return the images of a table (see `kdjax.data.table`).

    Args:
        path: `data.path`.
        columns: names of the columns of images and labels.
        view: the resizing of images; without a size all must have the size of the first one.
        skip_unreadable: omit images that cannot be read, with a warning.

    Raises:
        UserError: the errors of `read_splits` and `number_classes`, and no column of images or
            labels.
    """
    splits = read_splits(path, columns)
    for split in splits.values():
        require(path, split, "image", "label")
    images = {
        name: ImageColumn(split.files, modified(split.files), split.columns.image)
        for name, split in splits.items()
    }
    label = splits["train"].columns.label
    labels = number_classes(
        f"data.path={path}: column {label}",
        {name: split.values(split.columns.label) for name, split in splits.items()},
        {name: split.table.class_names.get(label) for name, split in splits.items()},
    )
    lines = {name: lines_of_files(split.files) for name, split in splits.items()}
    return labelled_set(
        f"data.path={path}", images, labels, view, lines, skip_unreadable=skip_unreadable
    )


def _are_bytes(array: np.ndarray) -> bool:
    return array.size > 0 and array.min() >= 0 and array.max() <= 255


def _file(content: Path | bytes) -> Any:
    return partial(BytesIO, content) if isinstance(content, bytes) else content
