"""Tables of examples: .parquet, .arrow, .csv, .tsv and .jsonl files, read with pyarrow.

A table that the library `datasets` wrote names its classes in the schema (`ClassLabel`).
"""

import csv
import io
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.data.hub import download, is_hub_name
from kdjax.data.options import Columns
from kdjax.data.split_files import find_split_files, order_splits
from kdjax.data.text.rows import read_jsonl
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError

SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl")
EXPECTED = f"a folder of save_to_disk, or of {', '.join(SUFFIXES)} files, or one such file"

LABELS = ("label", "labels", "fine_label", "cls", "class", "category", "target")  # the usual names
_IMAGES = ("image", "img", "picture")
_PAIRS = {  # first text -> second text, by the usual names
    "text": ("text_pair",),
    "sentence1": ("sentence2",),
    "premise": ("hypothesis",),
    "question1": ("question2",),
    "question": ("sentence", "passage", "answer"),
    "sentence": (),
    "review": (),
    "content": (),
}


class Table(NamedTuple):
    """The rows of a split: columns by name (lists, or pyarrow's), and the names of classes.

    `starts` is the first row of each file.
    """

    columns: Mapping[str, Any]
    class_names: Mapping[str, tuple[str, ...]]
    size: int
    starts: tuple[int, ...]


class TableSplit(NamedTuple):
    """The files of a split, its table, and the names of the columns to read ("": none)."""

    files: tuple[Path, ...]
    table: Table
    columns: Columns

    def values(self, column: str) -> list[Any]:
        """Return all values of a column."""
        values = self.table.columns[column]
        return values if isinstance(values, list) else values.to_pylist()


def read_splits(path: str | None, columns: Columns) -> dict[str, TableSplit]:
    """Return the tables of a set by split ("train" and perhaps others).

    A test split whose labels are all -1, as on the hub, is left out with a warning.

    Args:
        path: `data.path`: a file, a folder, or a name of the hub (see `hub.download`).
        columns: names of columns; None: the usual names.

    Raises:
        UserError: no or unreadable files, a missing column, an empty split.
    """
    if path and is_hub_name(path, SUFFIXES):
        files = order_splits(download(path), path)
    else:
        files = find_split_files(path, SUFFIXES, EXPECTED)
    splits = {}
    for split, each in files.items():
        table = read_table(each, modified(each))
        if not table.size:
            raise UserError(f"data.path={path}: {split} has no rows; give at least one")
        splits[split] = TableSplit(each, table, _find_columns(f"{path} ({split})", table, columns))
    _warn_of_unread_texts(path, splits["train"], columns)
    label = splits["train"].columns.label
    test = splits.get("test")
    if test and label in test.table.columns and set(test.values(label)) == {-1}:
        warnings.warn(f"data.path={path}: labels of test are all -1; it is left out", stacklevel=3)
        del splits["test"]
    return order_splits(splits, path)


def modified(files: Sequence[Path]) -> tuple[int, ...]:
    """Return the times of the last changes of files, in nanoseconds."""
    return tuple(file.stat().st_mtime_ns for file in files)


@lru_cache(maxsize=4)
def read_table(files: tuple[Path, ...], changed: tuple[int, ...]) -> Table:
    """Return the rows of files of one format; .arrow files are mapped, not loaded.

    Args:
        files: the files.
        changed: their `modified`; the last tables are kept until a file changes.

    Raises:
        UserError: a file that is damaged, or has other columns than the first.
    """
    suffix = files[0].suffix.lower()
    if suffix in (".csv", ".tsv", ".jsonl"):
        by_file = [read_rows(file) for file in files]
        rows = list(chain.from_iterable(by_file))
        names = dict.fromkeys(name for row in rows[:1] for name in row)
        for number, row in enumerate(rows):
            if row.keys() != names.keys():
                missing = ", ".join(sorted(row.keys() ^ names.keys()))
                raise UserError(
                    f"{files[0]}: row {number} and row 0 differ in the columns {missing}; all "
                    "rows must have the same columns"
                )
        columns = {name: [row[name] for row in rows] for name in names}
        return Table(columns, {}, len(rows), _starts(map(len, by_file)))
    pyarrow = _library("pyarrow")
    try:
        tables = [_read_arrow(file, suffix) for file in files]
        table = pyarrow.concat_tables(tables)
    except (*CORRUPT_FILE_ERRORS, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{_names(files)} cannot be read ({reason}); write the set again"
        ) from error
    columns = {name: table.column(name) for name in table.column_names}
    class_names = _class_names(table.schema.metadata)
    for file, each in zip(files, tables, strict=True):
        if _class_names(each.schema.metadata) != class_names:
            raise UserError(
                f"{files[0]} and {file} name other classes, or the same in another order; all "
                "files must name them alike"
            )
    return Table(columns, class_names, table.num_rows, _starts(each.num_rows for each in tables))


def _starts(counts: Iterable[int]) -> tuple[int, ...]:
    """Return the first row of each file, from the numbers of rows."""
    return tuple(accumulate(counts, initial=0))[:-1]


def is_table(path: str | None, columns: Columns) -> bool:
    """Return whether a set is a table: a column is named, or the path is a table's file."""
    return columns != Columns() or Path(path or "").suffix.lower() in SUFFIXES


def holds_text(path: str | None, columns: Columns) -> bool:
    """Return whether the table of a set is read as texts: it has no column of images."""
    with warnings.catch_warnings(action="ignore"):  # the reader warns
        train = read_splits(path, columns)["train"]
    return bool(columns.text or not train.columns.image)


def require(path: str | None, split: TableSplit, *needed: str) -> None:
    """Refuse a table without a column of images, labels or texts.

    Raises:
        UserError: naming the columns that exist.
    """
    for role in needed:
        if not getattr(split.columns, role):
            raise UserError(
                f"data.path={path} has no column of {role}s that is known by name; set "
                f"data.columns.{role} to one of {', '.join(split.table.columns)}"
            )


def _find_columns(path: str | None, table: Table, columns: Columns) -> Columns:
    def find(role: str, usual: Sequence[str]) -> str:
        name = getattr(columns, role)
        if name and name not in table.columns:
            raise UserError(
                f"data.columns.{role} is {name!r}, but data.path={path} has the columns "
                f"{', '.join(table.columns)}"
            )
        return name or next((each for each in usual if each in table.columns), "")

    text = find("text", tuple(_PAIRS))
    pair = find("text_pair", () if columns.text else _PAIRS.get(text, ()))
    return Columns(find("image", _IMAGES), find("label", LABELS), text, pair)


def _warn_of_unread_texts(path: str | None, train: TableSplit, columns: Columns) -> None:
    """Warn if texts are found by the usual names and other columns hold texts too."""
    if columns.text or train.columns.image or not train.columns.text:
        return
    texts = [name for name in (train.columns.text, train.columns.text_pair) if name]
    used = [*texts, train.columns.label]
    columns_of_table = train.table.columns.items()
    others = [name for name, cells in columns_of_table if name not in used and _is_text(cells[0])]
    if others:
        warnings.warn(
            f"data.path={path}: the text is {' and '.join(texts)}; not read: "
            f"{', '.join(others)}; data.columns.text and data.columns.text_pair name others",
            stacklevel=4,
        )


def _is_text(cell: Any) -> bool:
    """Return whether a cell, perhaps pyarrow's, is a string with letters."""
    value = cell.as_py() if hasattr(cell, "as_py") else cell
    return isinstance(value, str) and any(map(str.isalpha, value))


def read_rows(file: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a .csv, .tsv or .jsonl; cells may be quoted, with line breaks in them.

    Quotes of a .tsv are text where each line has all columns and the cells are not properly quoted.

    Raises:
        UserError: with the file and the line that cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        return [row for _, row in read_jsonl(file)]
    delimiter = "," if suffix == ".csv" else "\t"
    csv.field_size_limit(2**31 - 1)
    rows: list[Mapping[str, Any]] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            text = opened.read()
        quoting = (
            csv.QUOTE_NONE if suffix == ".tsv" and _quotes_are_text(text) else csv.QUOTE_MINIMAL
        )
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
        header = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{file} line {reader.line_num} has {len(cells)} cells, but its first line "
                    f"names {len(header)} columns; quote cells with {delimiter!r} in them"
                )
            rows.append(dict(zip(header, cells, strict=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read ({error}); write it again, in UTF-8") from error
    return rows


def _quotes_are_text(text: str) -> bool:
    """Return whether every line of a .tsv has all columns, and quotes would join or alter cells."""
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line]
    if '"' not in text or len({line.count("\t") for line in lines}) != 1:
        return False
    try:
        quoted = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
        return sum(1 for cells in quoted if cells) < len(lines)
    except csv.Error:
        return True


def _read_arrow(file: Path, suffix: str) -> Any:
    if suffix == ".parquet":
        return _library("pyarrow.parquet").ParquetFile(str(file)).read()
    pyarrow = _library("pyarrow")
    source = pyarrow.memory_map(str(file))
    with file.open("rb") as stored:
        is_file = stored.read(6) == b"ARROW1"  # else the stream that `datasets` writes
    opened = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
    return opened.read_all()


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the classes of the columns that the library `datasets` wrote as `ClassLabel`."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = {key: value.get("names") for key, value in features.items() if "names" in value}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: tuple(map(str, each)) for key, each in names.items() if each}


def _names(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(".parquet and .arrow need pyarrow: pip install 'kdjax[hf]'") from error
