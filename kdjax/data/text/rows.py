"""Rows of tsv and jsonl files, plain or gzipped, with their line numbers."""

import gzip
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from kdjax.data.text.tasks import Row
from kdjax.errors import UserError

_MOST_LINES = 8  # maximal number of lines of a quoted text in a .tsv
_MOST_BROKEN = 0.01  # maximal share of skipped lines of a .tsv
_MOST_CHARACTERS = 200  # maximal number of a file's characters in an error


def read_jsonl(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield the objects of a file.

    Raises:
        UserError: with the file and the line that is no object.
    """
    for number, line in _lines(file):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{file} line {number} is a {type(row).__name__}; give a JSON object")
        yield number, row


def read_tsv(
    file: Path, task: str, header: Sequence[str], columns: Set[str]
) -> Iterator[tuple[int, Row]]:
    """Yield the rows; a few rows with another number of columns are skipped with a warning.

    A line break inside quotes, as in QQP's questions, becomes a space.

    Args:
        file: the file.
        task: its name, for errors.
        header: names of the columns; empty if the first line has them.
        columns: names that the header must have.

    Raises:
        UserError: with the file, the line and what would be right.
    """
    lines = list(_lines(file))
    if not header and lines:
        header = _header(file, lines.pop(0)[1], columns)
    broken, at = [], 0
    while at < len(lines):
        number, line = lines[at]
        cells, used = line.split("\t"), 1
        if len(cells) < len(header):
            following = [text for _, text in lines[at + 1 : at + _MOST_LINES]]
            cells, used = _join_quoted(cells, following, len(header))
        if len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
            at += used
        else:
            broken.append((number, line.count("\t") + 1))
            at += 1
    if not broken:
        return
    number, count = broken[0]
    needed = f"{task} needs {len(header)}: {shorten(', '.join(header))}"
    problem = f"{file} line {number} has {count} columns; {needed}"
    if len(broken) > _MOST_BROKEN * len(lines):
        raise UserError(problem)
    warnings.warn(f"{problem}. {len(broken)} such lines were skipped", stacklevel=4)


def shorten(text: str) -> str:
    """Return the beginning of a text, for an error."""
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers from 1 and lines; only a line feed ends a line; quotes are literal."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch it again, in UTF-8") from error


def _header(file: Path, line: str, columns: Set[str]) -> tuple[str, ...]:
    if "\r" in line:
        raise UserError(f"{file} ends its lines with CR alone; convert them to LF")
    header = tuple(line.split("\t"))
    missing = sorted(columns - set(header))
    if missing:
        raise UserError(
            f"{file} lacks the column {', '.join(map(repr, missing))}; its first line has "
            f"{shorten(', '.join(map(repr, header)))}"
        )
    return header


def _join_quoted(cells: list[str], following: list[str], width: int) -> tuple[list[str], int]:
    """Join a quoted cell that continues in the next lines; return cells and the number of lines."""
    used = 1
    while len(cells) < width and cells[-1].startswith('"') and used <= len(following):
        head, *tail = following[used - 1].split("\t")
        cell, used = f"{cells[-1]} {head}", used + 1
        closed = cell.endswith('"') and cell.count('"') % 2 == 0
        if tail and not closed:
            break
        cells = [*cells[:-1], cell[1:-1].replace('""', '"') if closed else cell, *tail]
    return cells, used
