"""Types of trained networks with the bounds of their layers."""

import math
from collections.abc import Mapping, Sequence
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
