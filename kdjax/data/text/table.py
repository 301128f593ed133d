"""Texts or pairs of texts with classes, in a table (see `kdjax.data.table`)."""

from kdjax.data.class_labels import number_classes
from kdjax.data.options import Columns
from kdjax.data.table import TableSplit, read_splits, require
from kdjax.data.text.files import Example, TextSplits
from kdjax.data.text.rows import shorten
from kdjax.data.text.tasks import PAIR, SINGLE, Task
from kdjax.errors import UserError


def read_text_table(path: str | None, columns: Columns) -> tuple[Task, TextSplits]:
    """Return the task of a table, with its classes, and the examples by split.

    Raises:
        UserError: the errors of `read_splits` and `number_classes`, no column of texts or labels,
            and a value that is no text.
    """
    splits = read_splits(path, columns)
    for split in splits.values():
        require(path, split, "text", "label")
    label = splits["train"].columns.label
    labels = number_classes(
        f"data.path={path}: column {label}",
        {name: split.values(split.columns.label) for name, split in splits.items()},
        {name: split.table.class_names.get(label) for name, split in splits.items()},
    )
    task = PAIR if splits["train"].columns.text_pair else SINGLE
    examples = {
        name: _examples(split, task, labels.by_split[name].tolist())
        for name, split in splits.items()
    }
    task = task._replace(class_names=labels.class_names)
    return task, TextSplits(f"data.path={path}", examples.pop("train"), examples)


def _examples(split: TableSplit, task: Task, labels: list[int]) -> list[Example]:
    sides = {"text": split.columns.text}
    if task.second:
        sides["text_pair"] = split.columns.text_pair
    texts = {}
    for field, column in sides.items():
        texts[field] = split.values(column) if column else [None] * len(labels)
        for row, text in enumerate(texts[field]):
            if not isinstance(text, str):
                raise UserError(
                    f"{split.files[0]}: row {row} of column {column or field} is "
                    f"{shorten(repr(text))}; it must be text"
                )
    return [
        Example({field: each[row].strip() for field, each in texts.items()}, label, row, (row, 0))
        for row, label in enumerate(labels)
    ]
