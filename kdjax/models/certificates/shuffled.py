"""ShuffleNets: a shuffle of channels is an isometry, joined and split channels have rules."""

from kdjax.models.certificates.layers import average_pool, convolution, dense, inside, names
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    IDENTITY,
    RELU,
    Map,
    Shape,
    beside,
    halves,
    isometry,
    plus,
    row,
)
from kdjax.models.vision.shufflenet import shuffle
from kdjax.types import Variables

__all__ = ["shuffle_v1", "shuffle_v2"]

_GROUPS = 3  # of V1
_SHUFFLE = isometry(lambda x: shuffle(x, 2))


def shuffle_v1(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.shuffle_v1`."""
    found = [("stem", row(convolution(at, "conv1", "bn1"), RELU))]
    for stage in (1, 2, 3):
        before = []
        for index, name in enumerate(names(at, f"layer{stage}_")):
            # the few channels of the stem are not divided
            groups = 1 if (stage, index) == (1, 0) else _GROUPS
            before += [_grouped(inside(at, name), 1 if index else 2, groups), RELU]
        found += [(f"stage{stage}_pre", row(*before[:-1])), (f"stage{stage}", RELU)]
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]


def _grouped(at: Variables, stride: int, groups: int) -> Map:
    branch = row(
        convolution(at, "conv1", "bn1"),
        RELU,
        isometry(lambda x: shuffle(x, groups)),
        convolution(at, "conv2", "bn2", stride=stride),
        RELU,
        convolution(at, "conv3", "bn3"),
    )
    return plus(IDENTITY, branch) if stride == 1 else beside(branch, average_pool(3, 2))


def shuffle_v2(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.shuffle_v2`."""
    found = [("stem", row(convolution(at, "conv1", "bn1"), RELU))]
    for stage in (1, 2, 3):
        before = []
        for index, name in enumerate(names(at, f"layer{stage}_")):
            block = inside(at, name)
            # what a down block gives is behind a ReLU already: another one changes nothing
            before += [_split(block) if index else _down(block), RELU]
        found += [(f"stage{stage}_pre", row(*before[:-1])), (f"stage{stage}", RELU)]
    last = row(convolution(at, "conv2", "bn2"), RELU, GLOBAL_AVERAGE)
    return [*found, ("pooled", last), ("logits", dense(at, "fc"))]


def _down(at: Variables) -> Map:
    left = row(convolution(at, "conv1", "bn1", stride=2), convolution(at, "conv2", "bn2"), RELU)
    right = row(
        convolution(at, "conv3", "bn3"),
        RELU,
        convolution(at, "conv4", "bn4", stride=2),
        convolution(at, "conv5", "bn5"),
        RELU,
    )
    return row(beside(left, right), _SHUFFLE)


def _split(at: Variables) -> Map:
    branch = row(
        convolution(at, "conv1", "bn1"),
        RELU,
        convolution(at, "conv2", "bn2"),
        convolution(at, "conv3", "bn3"),
    )
    return row(halves(IDENTITY, branch), _SHUFFLE)
