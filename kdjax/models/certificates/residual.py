"""Residual networks: a block's constant is its shortcut's plus its branch's."""

from kdjax.models.certificates.layers import convolution, dense, inside, names, norm
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    IDENTITY,
    RELU,
    Map,
    Shape,
    isometry,
    max_pool,
    plus,
    row,
)
from kdjax.models.vision.resnet import pad_shortcut
from kdjax.types import Variables

__all__ = ["resnet", "resnet_imagenet", "wide_resnet"]


def resnet(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.resnet`."""
    found = [("stem", row(convolution(at, "conv1", "bn1"), RELU))]
    for stage in (1, 2, 3):
        blocks = [inside(at, name) for name in names(at, f"layer{stage}_")]
        found += _stage(stage, [_basic(b, _stride(stage, i)) for i, b in enumerate(blocks)])
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]


def _stride(stage: int, index: int) -> int:
    return 2 if stage > 1 and index == 0 else 1


def _stage(stage: int, blocks: list[Map]) -> list[tuple[str, Map]]:
    """Blocks with a ReLU after each; the last one's is a part by itself."""
    between = [part for block in blocks for part in (block, RELU)][:-1]
    return [(f"stage{stage}_pre", row(*between)), (f"stage{stage}", RELU)]


def _basic(at: Variables, stride: int) -> Map:
    """Two 3x3 convolutions beside an identity, a projection, or zero channels around the image."""
    first = convolution(at, "conv1", "bn1", stride=stride)
    branch = row(first, RELU, convolution(at, "conv2", "bn2"))
    into, out = at.params["conv1"]["kernel"].shape[2:]
    if "shortcut_conv" in at.params:
        return plus(convolution(at, "shortcut_conv", "shortcut_bn", stride=stride), branch)
    if stride == 1 and into == out:
        return plus(IDENTITY, branch)
    return plus(isometry(lambda x: pad_shortcut(x, out, stride)), branch)


def wide_resnet(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.wide_resnet`: a widening block begins with what its stage before is."""
    found, before = [("stem", convolution(at, "conv1"))], []
    for stage in (1, 2, 3):
        blocks = [inside(at, name) for name in names(at, f"block{stage}_")]
        for index, block in enumerate(blocks):
            stride = _stride(stage, index)
            first = convolution(block, "conv1", "bn2", stride=stride)
            branch = row(first, RELU, convolution(block, "conv2"))
            if "shortcut" not in block.params:
                before.append(plus(IDENTITY, row(norm(block, "bn1"), RELU, branch)))
                continue
            widened = plus(convolution(block, "shortcut", stride=stride), branch)
            if stride == 2:
                found.append((f"stage{stage - 1}_pre", norm(block, "bn1")))
                before += [RELU, widened]
            else:
                before += [norm(block, "bn1"), RELU, widened]
        found.append((f"stage{stage}", row(*before)))
        before = []
    found.append(("stage3_pre", norm(at, "bn1")))
    return [*found, ("pooled", row(RELU, GLOBAL_AVERAGE)), ("logits", dense(at, "fc"))]


def resnet_imagenet(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.resnet_imagenet`, either stem."""
    if at.params["conv1"]["kernel"].shape[0] == 7:
        stem = [convolution(at, "conv1", "bn1", stride=2), RELU, max_pool(3, 2)]
    else:
        stem = [convolution(at, "conv1", "bn1"), RELU]
    found = [("stem", row(*stem))]
    for stage in (1, 2, 3, 4):
        blocks = [inside(at, name) for name in names(at, f"layer{stage}_")]
        make = [_bottleneck if "conv3" in block.params else _basic for block in blocks]
        found += _stage(stage, [make[i](b, _stride(stage, i)) for i, b in enumerate(blocks)])
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]


def _bottleneck(at: Variables, stride: int) -> Map:
    """A 1x1, a 3x3 and a 1x1 convolution beside an identity or a projection."""
    second = convolution(at, "conv2", "bn2", stride=stride)
    last = convolution(at, "conv3", "bn3")
    branch = row(convolution(at, "conv1", "bn1"), RELU, second, RELU, last)
    if "shortcut_conv" in at.params:
        return plus(convolution(at, "shortcut_conv", "shortcut_bn", stride=stride), branch)
    return plus(IDENTITY, branch)
