"""The order of a network's classes: compared by name with the data's, and changed to match it."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from kdjax.errors import UserError
from kdjax.types import Spec, Variables


def in_data_order(variables: Variables, names: Sequence[str], spec: Spec, where: str) -> Variables:
    """Put the outputs of a network's last layer in the order of the data's classes.

    Names are compared without case, spaces and punctuation. A network without names, or with
    numbers for names, is assumed to have the data's order, with a warning.

    Args:
      variables: of the network, not stacked.
      names: of its classes, in the order of its outputs; empty if they are not known.
      spec: of the data. Variables for a regression or multiple choice are not changed.
      where: the network's file, for messages.

    Returns:
      The variables, with the last layer's outputs in the order of `spec.class_names`.

    Raises:
      UserError: the names contradict the data's.
    """
    labels = spec.class_names
    unordered = len(labels) != spec.num_classes or len(labels) == 1 or "choice_ids" in spec.inputs
    if unordered or tuple(names) == tuple(labels):  # equal also where a name is repeated
        return variables
    for spelling in (str, str.casefold, _letters):
        numbers = {spelling(name): number for number, name in enumerate(names)}
        order = [numbers.get(spelling(label)) for label in labels]
        if None not in order and len(set(order)) == len(names) == len(numbers):
            return _permute(variables, [int(number or 0) for number in order], where)
    if is_numbered(names) or is_numbered(labels):
        warnings.warn(
            f"{where} does not name its classes as the data does: its outputs are assumed to be "
            f"in the data's order: {_join(labels)}",
            stacklevel=2,
        )
        return variables
    raise UserError(
        f"{where} has the classes {_join(names)}, but the data has {_join(labels)}; give the "
        "network the data's names in its config.json, in the order of its outputs"
    )


def is_numbered(names: Sequence[str]) -> bool:
    """Return whether each name is its index, such as "3" or "LABEL_3"; True without names."""
    numbers = (re.fullmatch(r"[A-Za-z]*[ _-]?(\d+)", name) for name in names)
    return all(match and int(match[1]) == number for number, match in enumerate(numbers))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold()) or name


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _permute(variables: Variables, order: list[int], where: str) -> Variables:
    """Reorder the outputs of the last layers, and a detector's "deltas", 4 for each class."""
    if order == sorted(order):
        return variables
    boxes = [4 * number + side for number in order[:-1] for side in range(4)]  # background has none
    classes = dict.fromkeys(("fc", "distillation_fc"), np.array(order))
    indices = {**classes, "deltas": np.array(boxes)}

    def take(path: tuple[Any, ...], leaf: Any) -> Any:
        layer = str(getattr(path[-2], "key", ""))
        return leaf[..., indices[layer]] if layer in indices else leaf

    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(variables.params)]
    if not any("['fc']" in path for path in paths):  # of a lipschitz_mlp
        raise UserError(
            f"{where} has the data's classes in another order: export it in that of the data"
        )
    return variables._replace(params=jax.tree_util.tree_map_with_path(take, variables.params))
