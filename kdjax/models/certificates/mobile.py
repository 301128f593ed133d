"""MobileNets: rows of depthwise convolutions, in V2 beside identities."""

from kdjax.models.certificates.layers import convolution, dense, inside, names
from kdjax.models.certificates.maps import GLOBAL_AVERAGE, IDENTITY, RELU, Map, Shape, plus, row
from kdjax.types import Variables

__all__ = ["mobilenet_v1", "mobilenet_v2"]

_V1_HALVINGS = (2, 4, 6, 12)  # blocks whose depthwise convolution has stride 2
_V1_STAGES = {3: 1, 5: 2, 11: 3, 13: 4}  # last block -> stage
_V2_HALVINGS = (2, 3, 5)  # groups whose first block has stride 2
_V2_STAGES = {1: 1, 2: 2, 4: 3, 6: 4}  # last group -> stage


def mobilenet_v1(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.mobilenet_v1`."""
    stem = convolution(at, "model_0_0", "model_0_1", stride=2)
    found, before = [("stem", row(stem, RELU))], []
    for block in range(1, 14):
        layer = [f"model_{block}_{number}" for number in (0, 1, 3, 4)]
        stride = 2 if block in _V1_HALVINGS else 1
        before += [convolution(at, *layer[:2], stride=stride), RELU]
        before += [convolution(at, *layer[2:]), RELU]
        if stage := _V1_STAGES.get(block):
            found += [(f"stage{stage}_pre", row(*before[:-1])), (f"stage{stage}", RELU)]
            before = []
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]


def mobilenet_v2(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.mobilenet_v2`."""
    stem = convolution(at, "conv1_0", "conv1_1", stride=2)
    found, before = [("stem", row(stem, RELU))], []
    for group in range(7):
        for index, name in enumerate(names(at, f"blocks_{group}_")):
            stride = 2 if group in _V2_HALVINGS and index == 0 else 1
            before.append(_inverted(inside(at, name), stride))
        if stage := _V2_STAGES.get(group):
            found.append((f"stage{stage}", row(*before)))
            before = []
    last = row(convolution(at, "conv2_0", "conv2_1"), RELU, GLOBAL_AVERAGE)
    return [*found, ("pooled", last), ("logits", dense(at, "fc"))]


def _inverted(at: Variables, stride: int) -> Map:
    """Expand, filter each channel, project; beside an identity if the shapes allow."""
    branch = row(
        convolution(at, "conv_0", "conv_1"),
        RELU,
        convolution(at, "conv_3", "conv_4", stride=stride),
        RELU,
        convolution(at, "conv_6", "conv_7"),
    )
    into, out = at.params["conv_0"]["kernel"].shape[2], at.params["conv_6"]["kernel"].shape[3]
    return plus(IDENTITY, branch) if stride == 1 and into == out else branch
