"""Types of trained networks with the bounds of their layers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple


class LayerBound(NamedTuple):
    """A layer's distances between training and test examples, Lipschitz constant and bound."""

    name: str
    w1: float
    baseline: float
    sliced: float
    tail: float
    bound: float


class NetworkBounds(NamedTuple):
    """A trained network with its loss gap in nats and the bounds of its layers, input first.

    `values`: its swept values with the seed; `funnel`: the layer with the smallest bound; `held`:
    the gap is at most every bound.
    """

    variant: str
    role: str
    member: int
    values: Mapping[str, Any]
    gap: float
    train_loss: float
    label_cost: float
    layers: Sequence[LayerBound]
    funnel: str
    held: bool

    @property
    def bound(self) -> float:
        """Smallest bound of all layers."""
        return min(layer.bound for layer in self.layers)

    @property
    def logit_range(self) -> float:
        """Largest range of an example's logits: the cost of moving a label in nats."""
        return self.label_cost * math.sqrt(2)

    @property
    def sweep_values(self) -> tuple[tuple[str, Any], ...]:
        """Sorted swept values without the seed."""
        return tuple(sorted((k, v) for k, v in self.values.items() if k != "seed"))


def network_bounds(record: Mapping[str, Any]) -> NetworkBounds:
    """Convert a record of `diagnose.diagnose`."""
    layers = [
        LayerBound(*(layer[field] for field in LayerBound._fields)) for layer in record["layers"]
    ]
    fields = ("variant", "role", "member", "values", "gap")
    return NetworkBounds(
        *(record[field] for field in fields),
        train_loss=record["losses"]["train"],
        label_cost=record["label_cost"],
        layers=layers,
        funnel=record["funnel"],
        held=record["held"],
    )


def layer_order(layers: Iterable[Sequence[str]]) -> list[str]:
    """Return all layers from the input to the logits, in the order of the deepest networks.

    Args:
        layers: the names of the layers of each network.

    >>> layer_order([("input", "hidden0", "logits"), ("input", "hidden0", "hidden1", "logits")])
    ['input', 'hidden0', 'hidden1', 'logits']
    """
    names = dict.fromkeys(chain.from_iterable(sorted(layers, key=len, reverse=True)))
    inner = [name for name in names if name not in ("input", "logits")]
    return [*("input",) * ("input" in names), *inner, *("logits",) * ("logits" in names)]
