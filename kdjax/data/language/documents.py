"""Documents for language models: .jsonl, .txt and .parquet files, and Python's standard library."""

import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.options import SplitOptions
from kdjax.data.split_files import find_split_files
from kdjax.data.splits import plan
from kdjax.data.table import modified, read_table
from kdjax.data.text.rows import read_jsonl
from kdjax.errors import UserError

STDLIB = "stdlib"  # the path that stands for the sources of the running interpreter
_SUFFIXES = (".jsonl", ".txt", ".parquet")
_EXPECTED = f"a {', '.join(_SUFFIXES)} file, a folder of such files, or {STDLIB}"
# of the standard library: installed packages, tests, and modules that are generated tables
_LEFT_OUT = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data",
}  # fmt: skip


class Document(NamedTuple):
    """A text, or a prompt (None of a plain text) and its completion; `where` is for errors."""

    prompt: str | None
    text: str
    where: str


class DocumentSplits(NamedTuple):
    """The documents by split: "train", "validation" and "test"."""

    where: str
    by_split: Mapping[str, Sequence[Document]]


def read_documents(path: str | None, splitting: SplitOptions) -> DocumentSplits:
    """Return the documents of a file, a folder or the standard library by split.

    A .txt file is one document, as is a row of the others. Names of files give splits, as for
    tables; other splits are cut from the training documents.

    Args:
        path: `data.path`.
        splitting: the sizes of the splits, in documents.

    Raises:
        UserError: one line with the file and the row, and what would be right.
    """
    where = f"data.path={path}"
    stored = {"train": _standard_library()} if path == STDLIB else _read_files(path)
    for split, documents in stored.items():
        if not documents:
            raise UserError(f"{where}: {split} holds no document")
    train = stored["train"]
    has_test, has_validation = (split in stored for split in ("test", "validation"))
    no_labels = np.zeros(len(train), int)
    rows = plan(no_labels, where, splitting, has_test=has_test, has_validation=has_validation)
    cut = {
        split: [train[row] for row in numbers]
        for split, numbers in rows._asdict().items()
        if numbers is not None
    }
    return DocumentSplits(where, {**stored, **cut})


def _standard_library() -> list[Document]:
    """Return the .py files of the interpreter's standard library, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        file
        for file in sorted(root.rglob("*.py"))
        if not _LEFT_OUT & set(file.relative_to(root).parts)
    ]
    documents = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):  # a few files are in other encodings, by purpose
            continue
        if text.strip():
            documents.append(Document(None, text, file.relative_to(root).as_posix()))
    if not documents:
        raise UserError(f"data.path={STDLIB}: {root} holds no .py file; give a file or a folder")
    return documents


def _read_files(path: str | None) -> dict[str, list[Document]]:
    if path is None:
        raise UserError(f"data.path is not set; give {_EXPECTED}")
    by_split = find_split_files(path, _SUFFIXES, _EXPECTED)
    if not all(file.suffix.lower() in _SUFFIXES for files in by_split.values() for file in files):
        raise UserError(f"data.path={path} is no {', '.join(_SUFFIXES)} file; give {_EXPECTED}")
    return {
        split: [document for file in files for document in _read_file(file)]
        for split, files in by_split.items()
    }


def _read_file(file: Path) -> Iterator[Document]:
    suffix = file.suffix.lower()
    if suffix == ".txt":
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read ({error}); write it in UTF-8") from error
        yield _document({"text": text}, str(file))
    elif suffix == ".jsonl":
        for number, row in read_jsonl(file):
            yield _document(row, f"{file} line {number}")
    else:
        table = read_table((file,), modified([file]))
        columns = [c for c in ("text", "prompt", "completion") if c in table.columns]
        values = [table.columns[column].to_pylist() for column in columns]
        for number in range(table.size):
            row = {c: v[number] for c, v in zip(columns, values, strict=True)}
            yield _document(row, f"{file} row {number}")


def _document(row: Mapping[str, Any], where: str) -> Document:
    names = ("text",) if "text" in row else ("prompt", "completion")
    for name in names:
        if name not in row:
            known = ", ".join(row) or "none"
            raise UserError(f"{where}: give text, or prompt and completion; its keys are {known}")
        if not isinstance(row[name], str):
            raise UserError(f"{where}: {name} is {str(row[name])[:80]!r}; it must be a text")
        if name != "prompt" and not row[name].strip():
            raise UserError(f"{where}: {name} is empty; remove the row")
        try:
            row[name].encode()
        except UnicodeEncodeError as error:  # half of a pair of surrogates
            raise UserError(f"{where}: {name} is no Unicode text ({error}); mend it") from error
    if "text" in row and "prompt" in row:
        warnings.warn(f"{where}: text is read, prompt is not", stacklevel=2)
    return Document(row["prompt"] if len(names) > 1 else None, row[names[-1]], where)
