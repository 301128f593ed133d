"""Layers of ShuffleNets: shuffled, concatenated and split channels."""

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
from kdjax.models.vision.shufflenet import shuffle
from kdjax.types import Variables

_GROUPS = 3  # of V1
_SHUFFLE = nonexpansive(lambda x: shuffle(x, 2))


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
            # a down block ends with a ReLU: another one changes nothing
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
