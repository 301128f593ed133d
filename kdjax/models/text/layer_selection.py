"""A shallower network from some of the layers of a deeper one: where a student may start."""

import re
from collections.abc import Mapping, Sequence

from kdjax.types import PyTree, UserError, Variables

__all__ = ["keep_layers"]


def keep_layers(variables: Variables, layers: Sequence[int] | None = None) -> Variables:
    """Take over the chosen layers of a BERT, T5 or GPT-Neo, and all that is outside of layers.

    Build the student with as many layers and the same other sizes. A T5 keeps them in both of its
    stacks. The layers of a GPT-Neo are made for looking far or near in turn, and every second one
    is of the same kind: build its student with `layers=("global", ...)`, or keep pairs, (0, 1, 4,
    5) say.

    Args:
      variables: of the deeper network.
      layers: numbers of the layers that stay, from 0, in the order of the new network; every
        second one, 0, 2, 4, ..., if not given.

    Returns:
      Variables of the shallower network.

    Raises:
      UserError: no layers are kept, or one is not there; or the network has no numbered layers.

    >>> deep = {"word": 0, **{f"layer{i}": i * 10 for i in range(4)}}
    >>> keep_layers(Variables(deep, {})).params
    {'word': 0, 'layer0': 0, 'layer1': 20}
    """
    if layers is not None and not layers:
        raise UserError("keep_layers: layers is empty: keep at least one")
    params, found = _kept(variables.params, layers)
    if not found:
        raise UserError("keep_layers: the network has no layers by number: use bert, t5 or gpt_neo")
    return Variables(params, variables.stats)


def _kept(tree: PyTree, layers: Sequence[int] | None) -> tuple[PyTree, bool]:
    if not isinstance(tree, Mapping):
        return tree, False
    numbers = sorted(int(m[1]) for name in tree if (m := re.fullmatch(r"layer(\d+)", name)))
    if not numbers:
        pairs = {name: _kept(part, layers) for name, part in tree.items()}
        return {name: part for name, (part, _) in pairs.items()}, any(f for _, f in pairs.values())
    chosen = numbers[::2] if layers is None else list(layers)
    for number in chosen:
        if number not in numbers:
            raise UserError(
                f"keep_layers: layer {number} is not there: the network has 0 to {numbers[-1]}"
            )
    rest = {name: part for name, part in tree.items() if not re.fullmatch(r"layer\d+", name)}
    return rest | {f"layer{new}": tree[f"layer{old}"] for new, old in enumerate(chosen)}, True
