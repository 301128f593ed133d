"""Lipschitz constants of a trained network's layers, for the families of image networks below.

A network is split into a sequence of maps. Constants hold for evaluation mode, in Euclidean norms
and real arithmetic (bfloat16 rounding may exceed them); a batch norm is folded into the convolution
before it. The constant of a sum of maps is the sum of their constants; of concatenated outputs the
root of the sum of squares; of maps on separate channels the largest.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kdjax import bounds
from kdjax.errors import UserError
from kdjax.models.certificates import mobile, plain, residual
from kdjax.models.certificates.maps import NamedMaps, Shape, out_shape
from kdjax.types import Variables

__all__ = ["Stage", "decompose", "downstream_constants", "layer_constants"]

FAMILIES: dict[str, Callable[[Variables, Shape], NamedMaps]] = {
    "mlp": plain.mlp,
    "lipschitz_mlp": plain.lipschitz_mlp,
    "cnn": plain.cnn,
    r"vgg\d+": plain.vgg,
    r"resnet\d+(x4)?": residual.resnet,
    r"wrn_\d+_\d+": residual.wide_resnet,
    r"ResNet\d+": residual.resnet_imagenet,
    "MobileNetV1": mobile.mobilenet_v1,
    "MobileNetV2": mobile.mobilenet_v2,
    "ShuffleV1": mobile.shuffle_v1,
    "ShuffleV2": mobile.shuffle_v2,
}


class Stage(NamedTuple):
    """A named layer with a Lipschitz constant of the map from the layer before it.

    `matrix` [out, in] if that map is dense (with or without a ReLU after it), which allows tighter
    constants of several stages together.
    """

    name: str
    constant: float
    matrix: np.ndarray | None = None


def decompose(name: str, variables: Variables, shape: Sequence[int]) -> NamedMaps:
    """Split a network (named as for `models.build`) into maps that compose to it.

    Returns:
      The map from each feature of the network to the next one, in order, and "logits".

    Raises:
      UserError: no image network, or variables of another network.
    """
    for pattern, take_apart in FAMILIES.items():
        if re.fullmatch(pattern, name):
            stats = variables.stats.get("batch_stats", variables.stats)
            try:
                return take_apart(Variables(variables.params, stats), tuple(shape))
            except KeyError as error:
                raise UserError(f"bounds: variables of a {name} lack the layer {error}") from error
    raise UserError(
        f"bounds: no Lipschitz constants are known for the layers of a {name}; known are the mlp, "
        "cnn, resnet, wrn, vgg, MobileNet and Shuffle families"
    )


def layer_constants(name: str, variables: Variables, shape: Sequence[int]) -> list[Stage]:
    """Compute the Lipschitz constants of a network's layers; arguments and errors: `decompose`.

    Returns:
      "input" (constant 1), every layer of `decompose`, and "logits".
    """
    stages, size = [Stage("input", 1.0)], tuple(shape)
    for layer, layer_map in decompose(name, variables, shape):
        stages.append(Stage(layer, float(layer_map.constant(size)), layer_map.matrix))
        size = out_shape(layer_map, size)
    return stages


def downstream_constants(stages: Sequence[Stage]) -> np.ndarray:
    """Bound the Lipschitz constant of all layers after each stage, [stages]; the last is 1.

    The bound is the product of the constants; where only dense layers follow, the minimum of it and
    `bounds.absolute_product_bound`.
    """
    constants = np.array([stage.constant for stage in stages[1:]])
    products = np.array(bounds.lipschitz_tails(constants))
    for number in range(len(stages) - 1):
        matrices = [stage.matrix for stage in stages[number + 1 :] if stage.matrix is not None]
        if len(matrices) == len(stages) - 1 - number:
            products[number] = min(products[number], bounds.absolute_product_bound(matrices))
    return products
