"""A trained network as layers in a row, each with a Lipschitz constant: what bounds are made of.

For every network of images. Constants hold for evaluation mode, in Euclidean norms and real
numbers (bfloat16 rounds beyond them); a batch norm is folded into the convolution before it. A
branch beside a shortcut adds its constant to the shortcut's; maps joined side by side count as the
root of the sum of squares; parts of an image that go their own ways as the larger one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax import bounds
from kdjax.models.certificates import mobile, plain, residual, shuffled
from kdjax.models.certificates.maps import Map, Shape, out_shape
from kdjax.types import UserError, Variables

__all__ = ["Map", "Stage", "chain", "parts", "tails"]

Parts = list[tuple[str, Map]]
FAMILIES: dict[str, Callable[[Variables, Shape], Parts]] = {
    "mlp": plain.mlp,
    "lipschitz_mlp": plain.lipschitz_mlp,
    "cnn": plain.cnn,
    r"vgg\d+": plain.vgg,
    r"resnet\d+(x4)?": residual.resnet,
    r"wrn_\d+_\d+": residual.wide_resnet,
    r"ResNet\d+": residual.resnet_imagenet,
    "MobileNetV1": mobile.mobilenet_v1,
    "MobileNetV2": mobile.mobilenet_v2,
    "ShuffleV1": shuffled.shuffle_v1,
    "ShuffleV2": shuffled.shuffle_v2,
}


class Stage(NamedTuple):
    """A named layer, and a Lipschitz constant of the map to it from the stage before.

    `matrix` [out, in] if that map is dense (with a ReLU after it or not), which allows tighter
    constants of several stages together.
    """

    name: str
    constant: float
    matrix: np.ndarray | None = None


def parts(name: str, variables: Variables, shape: Sequence[int]) -> Parts:
    """Take a network apart into named maps, each of the layer before: together the network.

    Args:
      name: as for `models.build`.
      variables: of one network, not stacked.
      shape: of an image.

    Returns:
      A part for every feature that the network has, by its name and in their order, and "logits".

    Raises:
      UserError: no network of images.
    """
    for pattern, take in FAMILIES.items():
        if re.fullmatch(pattern, name):
            stats = variables.stats.get("batch_stats", variables.stats)
            return take(Variables(variables.params, stats), tuple(shape))
    raise UserError(
        f"bounds: no Lipschitz constants are known for the layers of a {name}, only for networks "
        "of images"
    )


def chain(model: Mapping[str, Any], variables: Variables, shape: Sequence[int]) -> list[Stage]:
    """Find the constants of a network's layers.

    Args:
      model: the config's table, with "name".
      variables: of one network, not stacked.
      shape: of an image.

    Returns:
      "input" (constant 1), every named layer once, and "logits".

    Raises:
      UserError: no network of images.
    """
    stages, size = [Stage("input", 1.0)], tuple(shape)
    for name, part in parts(model["name"], variables, shape):
        stages.append(Stage(name, float(part.constant(size)), part.matrix))
        size = out_shape(part, size)
    return stages


def tails(stages: Sequence[Stage]) -> np.ndarray:
    """Upper bound of the Lipschitz constant of all that follows each stage, [stages]; last 1.

    The product of the constants; where only dense layers follow, the smaller one of it and
    `bounds.absolute_product_bound`.
    """
    product = np.asarray(bounds.lipschitz_tails(np.array([s.constant for s in stages[1:]])))
    found = list(product)
    for number in range(len(stages) - 1):
        matrices = [stage.matrix for stage in stages[number + 1 :]]
        if all(matrix is not None for matrix in matrices):
            tighter = bounds.absolute_product_bound([m for m in matrices if m is not None])
            found[number] = min(found[number], tighter)
    return np.array(found)
