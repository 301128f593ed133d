"""Readers of GLUE and SuperGLUE: folders of tsv or jsonl files (also gzipped), and tfds.

The official development set is the test split, because the labels of the official test sets are
not public. Nothing is downloaded.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.data.images.tfds import open_prepared
from kdjax.data.text.rows import read_jsonl, read_tsv, shorten
from kdjax.data.text.tasks import Row, Task, fields
from kdjax.errors import UserError


class Example(NamedTuple):
    """One example: its texts, and `label`, the number of its class or its score.

    Examples of a `unit` stay in one split, and examples of a `group` are scored together (MultiRC:
    passage and question); in other tasks each example has its own unit and group.
    """

    fields: Mapping[str, str]
    label: float
    unit: int
    group: tuple[int, int]


class TextSplits(NamedTuple):
    """The examples by split; `evals` without "test" means that the caller must split `train`."""

    where: str
    train: list[Example]
    evals: Mapping[str, list[Example]]


def read(task: Task, path: str | None, train_file: str | None = None) -> TextSplits:
    """Return a task's examples from the folder `path`, or from tfds.

    Args:
        task: a task of `tasks.TASKS`.
        path: the task's folder, the folder of all tasks, or a data_dir of tfds (None: its default).
        train_file: the training file if it is not "train", without its ending: "train400",
            "train_sentences"; if it is the development file ("val"), the caller must split it.

    Raises:
        UserError: one line with the file, the line in it and what would be right.
    """
    folder = None if path is None else _folder(task, path)
    if folder is None:
        if train_file is not None:
            raise UserError(
                f"data.train_file is {train_file!r}, which tfds does not have; leave it out"
            )
        return _read_tfds(task, path)
    dev = {split: file for split, (file, _) in _dev(task).items()}
    name = _train_name(folder, task) if train_file is None else train_file
    train = read_file(task, _find(folder, task, name))
    evals = {
        split: read_file(task, _find(folder, task, file))
        for split, file in dev.items()
        if file != train_file
    }
    return TextSplits(f"data.path={path}", train, evals)


def _dev(task: Task) -> Mapping[str, tuple[str, str]]:
    file = "dev" if task.name.startswith("glue/") else "val"
    return task.dev or {"test": (file, "validation")}


def _files(folder: Path, task: Task) -> dict[str, Path]:
    """Return the task's files by name without endings; a plain file replaces a gzipped one."""
    ending = ".tsv" if task.name.startswith("glue/") else ".jsonl"
    return {
        file.name.removesuffix(suffix): file
        for suffix in (f"{ending}.gz", ending)
        for file in sorted(folder.glob(f"*{suffix}"))
    }


def _folder(task: Task, path: str) -> Path | None:
    """Return the folder of the task's files; None if `path` is a data_dir of tfds."""
    root = Path(path).expanduser()
    for folder in (root / task.folder, root):
        if _files(folder, task):
            return folder
    if Path(root, task.name.split("/")[0]).is_dir():
        return None
    ending = "tsv" if task.name.startswith("glue/") else "jsonl"
    raise UserError(
        f"data.path={path} holds no train.{ending}(.gz), neither itself nor in {task.folder}/, "
        f"and no {task.name} of tfds; give a folder that does"
    )


def _train_name(folder: Path, task: Task) -> str:
    names = [name for name in _files(folder, task) if name.startswith("train")]
    if "train" in names or not names:
        return "train"
    if len(names) > 1:
        raise UserError(f"{folder} holds {', '.join(names)}; set data.train_file to one of them")
    return names[0]


def _find(folder: Path, task: Task, name: str) -> Path:
    files = _files(folder, task)
    if name not in files:
        raise UserError(f"{folder} holds no file {name!r}; it has {', '.join(sorted(files))}")
    return files[name]


def read_file(task: Task, file: Path) -> list[Example]:
    """Return the examples of a tsv or jsonl file.

    Raises:
        UserError: an unreadable or empty file, a missing column, a wrong label.
    """
    columns = {task.label, *(task.columns.get(name, name) for name in _fields(task))}
    is_tsv = ".tsv" in file.suffixes
    rows = read_tsv(file, task.name, task.header, columns) if is_tsv else read_jsonl(file)
    examples: list[Example] = []
    for number, row in rows:
        examples += _examples(task, row, len(examples), f"{file} line {number}")
    if not examples:
        raise UserError(f"{file} has no examples; give at least one")
    return examples


def _fields(task: Task) -> tuple[str, ...]:
    return fields(task.first, task.second, task.prompt, *task.answers)


def _examples(task: Task, row: Row, first: int, where: str) -> Iterator[Example]:
    """Yield the examples of a stored row, numbered from `first`."""
    try:
        unfolded = list(task.unfold(row))
    except KeyError as error:
        raise UserError(f"{where} has no {error}; it has {shorten(', '.join(row))}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where} is not a row of {task.name}: {error}") from error
    for number, flat in enumerate(unfolded, first):
        texts = {}
        for name in _fields(task):
            text = flat.get(task.columns.get(name, name), flat.get(name))
            if not isinstance(text, str):
                keys = shorten(", ".join(flat))
                problem = f"{name!r} is {shorten(repr(text))}"
                raise UserError(f"{where}: {problem}; it must be text (has {keys})")
            texts[name] = text.strip()
        unit = flat.get("unit", number)
        label = _label(task, flat.get(task.label, flat.get("label")), where)
        yield Example(texts, label, unit, (unit, flat.get("group", 0)))


def _label(task: Task, value: Any, where: str) -> float:
    if task.bounds is not None:
        low, high = task.bounds
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = float("nan")
        if not low <= score <= high:
            raise UserError(
                f"{where}: {task.label} is {shorten(repr(value))}; give a number in [{low}, {high}]"
            )
        return score
    spellings = task.labels or task.class_names
    if str(value) not in spellings:
        raise UserError(
            f"{where}: {task.label} is {shorten(repr(value))}; {task.name} has "
            f"{', '.join(spellings)}"
        )
    return spellings.index(str(value))


def _read_tfds(task: Task, path: str | None) -> TextSplits:
    name = task.tfds or task.name
    builder = _builder(name, path)
    where = f"data.task={task.name}"
    splits = {"train": "train", **{split: stored for split, (_, stored) in _dev(task).items()}}
    examples = {}
    for split, stored in splits.items():
        rows = open_prepared(builder, stored, name, path, key="data.task")
        examples[split] = _stored(task, rows, f"{where}, tfds' split {stored}")
    return TextSplits(where, examples.pop("train"), examples)


def _stored(task: Task, rows: Iterable[Row], where: str) -> list[Example]:
    examples: list[Example] = []
    spellings = task.labels or task.class_names
    for number, row in enumerate(rows):
        plain: dict[str, Any] = {
            key: value.decode() if isinstance(value, bytes) else value for key, value in row.items()
        }
        label = plain["label"]
        if task.bounds is None and 0 <= label < len(spellings):  # an index into tfds' classes
            plain["label"] = spellings[int(label)]
        examples += _examples(task, plain, len(examples), f"{where}, example {number}")
    if not examples:
        raise UserError(f"{where} is empty; prepare it again")
    return examples


def _builder(name: str, path: str | None) -> Any:
    import tensorflow_datasets as tfds  # takes seconds; folders do not need it

    try:
        # tfds.text needs TensorFlow, but this part of it does not.
        importlib.import_module(f"tensorflow_datasets.text.{name.split('/')[0]}")
        return tfds.builder(name, data_dir=path, file_format="array_record")
    except (ImportError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[-120:]
        raise UserError(
            f"data.task={name}: tfds refuses it (...{reason}); super_glue needs "
            "pip install 'kdjax[tf]', or give the folder of its files in data.path"
        ) from error
