"""Initial weights of a shallow network, copied from layers of a deeper one."""

import re
from collections.abc import Mapping, Sequence

from kdjax.errors import UserError
from kdjax.types import PyTree, Variables


def select_layers(variables: Variables, layers: Sequence[int] | None = None) -> Variables:
    """Select layers of a transformer; keep all parameters that are not in layers.

    Build the student with that number of layers and otherwise equal sizes. In a T5 the same layers
    are selected from both stacks. The layers of a GPT-Neo alternate between global and local, so
    every second layer has the same kind: build its student with `layers=("global", ...)`, or select
    pairs such as (0, 1, 4, 5).

    Args:
      variables: of the deeper network.
      layers: numbers of the layers, from 0, in the order of the new network; None is 0, 2, 4, ...

    Returns:
      Variables of the shallower network.

    Raises:
      UserError: no layer is selected, one does not exist, or the network has no numbered layers.

    >>> deep = {"word": 0, **{f"layer{i}": i * 10 for i in range(4)}}
    >>> select_layers(Variables(deep, {})).params
    {'word': 0, 'layer0': 0, 'layer1': 20}
    """
    if layers is not None and not layers:
        raise UserError("keep_layers is empty: keep at least one layer")
    params, has_layers = _select(variables.params, layers)
    if not has_layers:
        raise UserError("keep_layers: the network has no numbered layers: use a transformer")
    return Variables(params, variables.stats)


def _select(tree: PyTree, layers: Sequence[int] | None) -> tuple[PyTree, bool]:
    if not isinstance(tree, Mapping):
        return tree, False
    numbers = sorted(int(m[1]) for name in tree if (m := re.fullmatch(r"layer(\d+)", name)))
    if not numbers:
        parts = {name: _select(part, layers) for name, part in tree.items()}
        selected = {name: part for name, (part, _) in parts.items()}
        return selected, any(has_layers for _, has_layers in parts.values())
    chosen = numbers[::2] if layers is None else list(layers)
    for number in chosen:
        if number not in numbers:
            raise UserError(
                f"keep_layers: there is no layer {number}; the network has 0 to {numbers[-1]}"
            )
    rest = {name: part for name, part in tree.items() if not re.fullmatch(r"layer\d+", name)}
    return rest | {f"layer{new}": tree[f"layer{old}"] for new, old in enumerate(chosen)}, True
