"""Our names of arrays and PyTorch's, for the networks whose weights are found in the wild.

A path of ours, "params/layer1_0/shortcut_conv/kernel", becomes a name of the usual PyTorch code,
"layer1.0.downsample.0.weight". The rules differ by family in the last layer and the shortcuts.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.types import UserError

__all__ = ["Dialect", "dialect", "last_layer", "normalise", "shapes_of", "to_name"]

# Under these names the last linear layer and the projections of a ResNet are found; whichever a
# file uses is read as the dialect's own.
_HEADS = ("fc", "linear", "classifier", "classifier.0")
_PROJECTIONS = ("downsample", "shortcut")


class Dialect(NamedTuple):
    """How the PyTorch code of a family names the last layer and the projections."""

    head: str
    projection: str | None = None


def dialect(name: str, *, window: int) -> Dialect:
    """Say how the tensors of a network are named.

    Args:
      name: as for `models.build`.
      window: height of its first kernel, by which the two stems of "ResNet..." differ.

    Raises:
      UserError: no PyTorch code of that network is known.
    """
    if name.startswith("wrn_"):
        return Dialect("fc", "convShortcut")
    if name.startswith("resnet"):
        return Dialect("fc", "downsample")
    if name.startswith("ResNet"):
        return Dialect("fc", "downsample") if window == 7 else Dialect("linear", "shortcut")
    if name.startswith("Shuffle"):
        return Dialect("linear")
    heads = {"MobileNetV1": "fc", "MobileNetV2": "classifier.0"}
    if name in heads or name.startswith("vgg"):
        return Dialect(heads.get(name, "classifier"))
    raise UserError(
        f'model "{name}" has no PyTorch names; those of a resnet, ResNet, wrn, vgg, MobileNet '
        "or Shuffle are known"
    )


def to_name(path: str, said: Dialect) -> str:
    """Translate a flat name of ours ("params/...", "stats/batch_stats/...")."""
    *layers, leaf = path.removeprefix("params/").removeprefix("stats/batch_stats/").split("/")
    kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    layers = [_layer(layer, said) for layer in layers]
    return ".".join([*layers, kinds.get(leaf, leaf)])


def shapes_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return PyTorch's shape of an array of ours: OIHW and [out, in]."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape[::-1])


def normalise(tensors: Mapping[str, Any], said: Dialect) -> dict[str, np.ndarray]:
    """Drop "module." and counters of batches, and bring heads and projections to the dialect."""
    found = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("module.")
        if plain.endswith("num_batches_tracked"):
            continue
        head, _, kind = plain.rpartition(".")
        if head in _HEADS:
            plain = f"{said.head}.{kind}"
        if said.projection in _PROJECTIONS:
            for other in _PROJECTIONS:
                plain = plain.replace(f".{other}.", f".{said.projection}.")
        found[plain] = np.asarray(tensor)
    return found


def last_layer(tensors: Mapping[str, Any], what: str) -> np.ndarray:
    """Find the weight [classes, width] of the last linear layer.

    Raises:
      UserError: there is none; `what` says where.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    for head in _HEADS:
        weight = plain.get(f"{head}.weight")
        if weight is not None and np.ndim(weight) == 2:
            return np.asarray(weight)
    near = ", ".join(list(plain)[-2:]) or "nothing"
    raise UserError(f'{what}: no "fc.weight" [classes, width] or the like; the last are {near}')


def _layer(layer: str, said: Dialect) -> str:
    if layer == "fc":
        return said.head
    if said.projection == "convShortcut":
        if layer == "shortcut":
            return said.projection
        return re.sub(r"^(block\d+)_(\d+)$", r"\1.layer.\2", layer)
    if layer in ("shortcut_conv", "shortcut_bn"):
        return f"{said.projection}.{0 if layer == 'shortcut_conv' else 1}"
    return layer.replace("_", ".")
