"""Layers of residual networks: a block's constant is its shortcut's plus its branch's."""

from kdjax.models.certificates.layers import (
    batch_norm,
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
    max_pool,
    nonexpansive,
)
from kdjax.models.vision.resnet import pad_shortcut
from kdjax.types import Variables


def resnet(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.resnet`."""
    return _resnet(module, [convolution(module, "conv1", "bn1"), RELU], 3)


def _resnet(module: Variables, stem: list[Map], stages: int) -> NamedMaps:
    layers = [("stem", compose(*stem))]
    for stage in range(1, stages + 1):
        maps = []
        for index, block in enumerate(submodules(module, f"layer{stage}_")):
            maps += [_block(block, _stride(stage, index)), RELU]
        layers += stage_layers(stage, maps)
    return [*layers, ("pooled", GLOBAL_AVERAGE), ("logits", dense(module, "fc"))]


def _stride(stage: int, index: int) -> int:
    return 2 if stage > 1 and index == 0 else 1


def _block(module: Variables, stride: int) -> Map:
    """Return two or three convolutions plus an identity, a projection, or a padded identity."""
    if "conv3" in module.params:
        second = convolution(module, "conv2", "bn2", stride=stride)
        last, name = compose(second, RELU, convolution(module, "conv3", "bn3")), "conv3"
        first = convolution(module, "conv1", "bn1")
    else:
        first = convolution(module, "conv1", "bn1", stride=stride)
        last, name = convolution(module, "conv2", "bn2"), "conv2"
    branch = compose(first, RELU, last)
    if "shortcut_conv" in module.params:
        return add(convolution(module, "shortcut_conv", "shortcut_bn", stride=stride), branch)
    into, out = module.params["conv1"]["kernel"].shape[2], module.params[name]["kernel"].shape[3]
    if stride == 1 and into == out:
        return add(IDENTITY, branch)
    return add(nonexpansive(lambda x: pad_shortcut(x, out, stride)), branch)


def wide_resnet(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.wide_resnet`; stages 1 and 2 end inside the next block."""
    layers, pending = [("stem", convolution(module, "conv1"))], []  # pending: of the next layer
    for stage in (1, 2, 3):
        for index, block in enumerate(submodules(module, f"block{stage}_")):
            stride = _stride(stage, index)
            first = convolution(block, "conv1", "bn2", stride=stride)
            branch = compose(first, RELU, convolution(block, "conv2"))
            if "shortcut" not in block.params:
                pending.append(add(IDENTITY, compose(batch_norm(block, "bn1"), RELU, branch)))
                continue
            widened = add(convolution(block, "shortcut", stride=stride), branch)
            if stride == 2:
                layers.append((f"stage{stage - 1}_pre", batch_norm(block, "bn1")))
                pending += [RELU, widened]
            else:
                pending += [batch_norm(block, "bn1"), RELU, widened]
        layers.append((f"stage{stage}", compose(*pending)))
        pending = []
    layers.append(("stage3_pre", batch_norm(module, "bn1")))
    return [*layers, ("pooled", compose(RELU, GLOBAL_AVERAGE)), ("logits", dense(module, "fc"))]


def resnet_imagenet(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.resnet_imagenet`, with either stem."""
    if module.params["conv1"]["kernel"].shape[0] == 7:
        stem = [convolution(module, "conv1", "bn1", stride=2), RELU, max_pool(3, 2)]
    else:
        stem = [convolution(module, "conv1", "bn1"), RELU]
    return _resnet(module, stem, 4)
