"""Labels of any spelling as numbers of classes, the same in all splits."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.errors import UserError

_MOST = 8  # names in an error


class Labels(NamedTuple):
    """The names of the classes and the labels int32 [n] of each split, numbers of classes."""

    class_names: tuple[str, ...]
    by_split: Mapping[str, np.ndarray]


def number_classes(
    where: str,
    values: Mapping[str, Sequence[Any]],
    names: Mapping[str, tuple[str, ...] | None],
) -> Labels:
    """Return the labels of all splits as numbers of the classes of the training split.

    Names or numbers are sorted if the data does not name its classes.

    Args:
        where: the name of the set and the column, for errors.
        values: the labels by split: names of classes or whole numbers.
        names: by split, the names of the classes that its numbers stand for; None: not named.

    Raises:
        UserError: a label that is missing or no class, fewer than two classes, names of classes
            that differ between splits.
    """
    values = {split: _uniform(f"{where} ({split})", each) for split, each in values.items()}
    declared = names["train"]
    for split in values:
        if names.get(split) != declared:
            raise UserError(
                f"{where}: the classes of {split} are {_text(names.get(split))} but those of train "
                f"{_text(declared)}; both must name the same classes in the same order"
            )
    classes = tuple(range(len(declared))) if declared else tuple(sorted(set(values["train"])))
    if declared and any(isinstance(value, str) for value in values["train"]):
        classes = declared
    if len(classes) < 2:
        raise UserError(f"{where}: the only class is {_text(classes)}; at least two are needed")
    number = {value: index for index, value in enumerate(classes)}
    labels = {}
    for split, each in values.items():
        if unknown := sorted(set(each) - number.keys(), key=str):
            if declared and isinstance(unknown[0], int):
                raise UserError(
                    f"{where}: {split} has the label {unknown[0]!r}; labels number the "
                    f"{len(declared)} named classes from 0 to {len(declared) - 1}"
                )
            raise UserError(
                f"{where}: {split} has the class {unknown[0]!r}, but the classes are "
                f"{_text(declared or classes)}; the classes of all splits must be those of train"
            )
        labels[split] = np.array([number[value] for value in each], np.int32)
    return Labels(tuple(map(str, declared or classes)), labels)


def _uniform(where: str, values: Sequence[Any]) -> list[int] | list[str]:
    """Return labels as whole numbers if all are, else as text."""
    try:
        numbers = [int(value) for value in values]
        are_numbers = all(str(n) == str(v).strip() for n, v in zip(numbers, values, strict=True))
    except (TypeError, ValueError):
        are_numbers, numbers = False, []
    if are_numbers and min(numbers, default=0) >= 0:
        return numbers
    for row, value in enumerate(values):
        is_label = isinstance(value, str | int) and str(value).strip()
        if not is_label or (are_numbers and numbers[row] < 0):
            raise UserError(
                f"{where}: the label of row {row} is {str(value)[:80]!r}; labels are names of "
                "classes or whole numbers >= 0"
            )
    return [str(value).strip() for value in values]


def _text(names: Sequence[Any] | None) -> str:
    if names is None:
        return "not named"
    return ", ".join(map(str, names[:_MOST])) + (", ..." if len(names) > _MOST else "")
