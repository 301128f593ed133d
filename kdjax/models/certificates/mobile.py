"""Layers of MobileNets and ShuffleNets: depthwise, shuffled, concatenated and split channels."""

from kdjax.models.certificates.layers import (
    average_pool,
    convolution,
    dense,
    stage_layers,
    submodules,
)
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    IDENTITY,
    RELU,
    Map,
    NamedMaps,
    Shape,
    add,
    compose,
    concat,
    nonexpansive,
    split_channels,
)
from kdjax.models.vision.mobilenet import V1_STAGES, V2_STAGES
from kdjax.models.vision.shufflenet import shuffle
from kdjax.types import Variables

_V1_HALVINGS = (2, 4, 6, 12)  # blocks whose depthwise convolution has stride 2
_V2_HALVINGS = (2, 3, 5)  # groups whose first block has stride 2
_GROUPS = 3  # of ShuffleNetV1
_SHUFFLE = nonexpansive(lambda x: shuffle(x, 2))


def mobilenet_v1(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.mobilenet_v1`."""
    stem = convolution(module, "model_0_0", "model_0_1", stride=2)
    layers, pending = [("stem", compose(stem, RELU))], []  # pending: maps of the next layer
    for block in range(1, 14):
        layer = [f"model_{block}_{number}" for number in (0, 1, 3, 4)]
        stride = 2 if block in _V1_HALVINGS else 1
        pending += [convolution(module, *layer[:2], stride=stride), RELU]
        pending += [convolution(module, *layer[2:]), RELU]
        if stage := V1_STAGES.get(block):
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
        if stage := V2_STAGES.get(group):
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


def shuffle_v1(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.shuffle_v1`."""
    layers = [("stem", compose(convolution(module, "conv1", "bn1"), RELU))]
    for stage in (1, 2, 3):
        pending = []
        for index, block in enumerate(submodules(module, f"layer{stage}_")):
            # the few channels of the stem are not divided
            groups = 1 if (stage, index) == (1, 0) else _GROUPS
            pending += [_grouped(block, 1 if index else 2, groups), RELU]
        layers += stage_layers(stage, pending)
    return [*layers, ("pooled", GLOBAL_AVERAGE), ("logits", dense(module, "fc"))]


def _grouped(module: Variables, stride: int, groups: int) -> Map:
    branch = compose(
        convolution(module, "conv1", "bn1"),
        RELU,
        nonexpansive(lambda x: shuffle(x, groups)),
        convolution(module, "conv2", "bn2", stride=stride),
        RELU,
        convolution(module, "conv3", "bn3"),
    )
    return add(IDENTITY, branch) if stride == 1 else concat(branch, average_pool(3, 2))


def shuffle_v2(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.shuffle_v2`."""
    layers = [("stem", compose(convolution(module, "conv1", "bn1"), RELU))]
    for stage in (1, 2, 3):
        pending = []
        for index, block in enumerate(submodules(module, f"layer{stage}_")):
            # a down block ends with a ReLU, so another one changes nothing
            pending += [_split(block) if index else _down(block), RELU]
        layers += stage_layers(stage, pending)
    last = compose(convolution(module, "conv2", "bn2"), RELU, GLOBAL_AVERAGE)
    return [*layers, ("pooled", last), ("logits", dense(module, "fc"))]


def _down(module: Variables) -> Map:
    first = convolution(module, "conv1", "bn1", stride=2)
    left = compose(first, convolution(module, "conv2", "bn2"), RELU)
    right = compose(
        convolution(module, "conv3", "bn3"),
        RELU,
        convolution(module, "conv4", "bn4", stride=2),
        convolution(module, "conv5", "bn5"),
        RELU,
    )
    return compose(concat(left, right), _SHUFFLE)


def _split(module: Variables) -> Map:
    branch = compose(
        convolution(module, "conv1", "bn1"),
        RELU,
        convolution(module, "conv2", "bn2"),
        convolution(module, "conv3", "bn3"),
    )
    return compose(split_channels(IDENTITY, branch), _SHUFFLE)
