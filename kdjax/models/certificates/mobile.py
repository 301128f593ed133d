"""Layers of MobileNets: depthwise convolutions, in V2 with identity shortcuts."""

from kdjax.models.certificates.layers import convolution, dense, stage_layers, submodules
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    IDENTITY,
    RELU,
    Map,
    NamedMaps,
    Shape,
    add,
    compose,
)
from kdjax.types import Variables

_V1_HALVINGS = (2, 4, 6, 12)  # blocks whose depthwise convolution has stride 2
_V1_STAGES = {3: 1, 5: 2, 11: 3, 13: 4}  # last block -> stage
_V2_HALVINGS = (2, 3, 5)  # groups whose first block has stride 2
_V2_STAGES = {1: 1, 2: 2, 4: 3, 6: 4}  # last group -> stage


def mobilenet_v1(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.mobilenet_v1`."""
    stem = convolution(module, "model_0_0", "model_0_1", stride=2)
    layers, pending = [("stem", compose(stem, RELU))], []  # pending: maps of the next layer
    for block in range(1, 14):
        layer = [f"model_{block}_{number}" for number in (0, 1, 3, 4)]
        stride = 2 if block in _V1_HALVINGS else 1
        pending += [convolution(module, *layer[:2], stride=stride), RELU]
        pending += [convolution(module, *layer[2:]), RELU]
        if stage := _V1_STAGES.get(block):
            layers += stage_layers(stage, pending)
            pending = []
    return [*layers, ("pooled", GLOBAL_AVERAGE), ("logits", dense(module, "fc"))]


def mobilenet_v2(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.mobilenet_v2`."""
    stem = convolution(module, "conv1_0", "conv1_1", stride=2)
    layers, pending = [("stem", compose(stem, RELU))], []
    for group in range(7):
        for index, block in enumerate(submodules(module, f"blocks_{group}_")):
            pending.append(_inverted(block, 2 if group in _V2_HALVINGS and index == 0 else 1))
        if stage := _V2_STAGES.get(group):
            layers.append((f"stage{stage}", compose(*pending)))
            pending = []
    last = compose(convolution(module, "conv2_0", "conv2_1"), RELU, GLOBAL_AVERAGE)
    return [*layers, ("pooled", last), ("logits", dense(module, "fc"))]


def _inverted(module: Variables, stride: int) -> Map:
    """Expand, filter each channel, project; plus an identity if the shapes allow it."""
    branch = compose(
        convolution(module, "conv_0", "conv_1"),
        RELU,
        convolution(module, "conv_3", "conv_4", stride=stride),
        RELU,
        convolution(module, "conv_6", "conv_7"),
    )
    into = module.params["conv_0"]["kernel"].shape[2]
    out = module.params["conv_6"]["kernel"].shape[3]
    return add(IDENTITY, branch) if stride == 1 and into == out else branch
