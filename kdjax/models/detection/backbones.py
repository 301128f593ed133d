"""Backbones of a detector: the ImageNet networks without their last layer, and what is frozen."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from kdjax.models.vision.mobilenet import mobilenet_v2
from kdjax.models.vision.resnet_imagenet import resnet_imagenet
from kdjax.types import PyTree, UserError, Variables

__all__ = ["STRIDES", "divide", "frozen_parts", "make_backbone", "merge", "with_backbone"]

STRIDES = (4, 8, 16, 32, 64)  # of the levels made of stages 1 to 4, and of the one beyond
_RESNETS = {f"ResNet{depth}": depth for depth in (10, 18, 34, 50, 101)}
# names of the layers of each stage, the stem being the first
_STAGES = {
    "ResNet": (r"conv1|bn1", r"layer1_.*", r"layer2_.*", r"layer3_.*", r"layer4_.*"),
    "MobileNetV2": (
        r"conv1_.*", r"blocks_[01]_.*", r"blocks_2_.*", r"blocks_[34]_.*", r"blocks_[56]_.*",
    ),
}  # fmt: skip


def make_backbone(
    name: str, options: Mapping[str, Any], *, dtype: Any, axis_name: str | None
) -> nn.Module:
    """Make a network whose features "stage1" to "stage4" have strides 4 to 32.

    Raises:
      UserError: another network, or an option that it does not have.
    """
    if name not in (*_RESNETS, "MobileNetV2"):
        raise UserError(f"backbone is {name!r}: use one of {', '.join(_RESNETS)}, MobileNetV2")
    if unknown := sorted(set(options) - {"width"}):
        raise UserError(f"backbone_options.{unknown[0]}: no such option; there is width")
    common = {"num_classes": 0, "stem": "imagenet", "dtype": dtype, "axis_name": axis_name}
    if name == "MobileNetV2":
        return mobilenet_v2(**common, **{"width": 1.0, **options})
    return resnet_imagenet(depth=_RESNETS[name], **common, **options)


def frozen_parts(name: str, *, norm: bool, stages: int) -> Callable[[tuple[str, ...]], bool]:
    """Say which parameters of a detector do not train, by their path.

    Args:
      name: of the backbone.
      norm: its batch norms do not.
      stages: nor do so many first stages, the stem included.

    Raises:
      UserError: more stages than there are, or some without `norm`: a stage that does not train
        keeps its statistics too.
    """
    known = _STAGES["ResNet" if name in _RESNETS else name]
    if not 0 <= stages <= len(known):
        raise UserError(f"frozen_stages is {stages}: use 0 to {len(known)}")
    if stages and not norm:
        raise UserError(f"frozen_stages is {stages} but frozen_norm is False: set it to True")
    layers = re.compile("|".join(known[:stages])) if stages else None

    def frozen(path: tuple[str, ...]) -> bool:
        if path[0] != "backbone":
            return False
        # convolutions of these backbones have a kernel and no bias
        return (norm and path[-1] in ("scale", "bias")) or (
            layers is not None and layers.fullmatch(path[1]) is not None
        )

    return frozen


def divide(params: PyTree, frozen: Callable[[tuple[str, ...]], bool]) -> tuple[PyTree, PyTree]:
    """Divide nested params into those that train and those that do not; empty tables vanish."""

    def walk(tree: Mapping[str, Any], path: tuple[str, ...]) -> tuple[dict, dict]:
        trained, still = {}, {}
        for name, part in tree.items():
            here = (*path, name)
            if isinstance(part, Mapping):
                a, b = walk(part, here)
                trained |= {name: a} if a else {}
                still |= {name: b} if b else {}
            elif frozen(here):
                still[name] = part
            else:
                trained[name] = part
        return trained, still

    return walk(params, ())


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Undo `divide`."""
    found = dict(a)
    for name, part in b.items():
        both = name in found and isinstance(part, Mapping)
        found[name] = merge(found[name], part) if both else part
    return found


def with_backbone(detector: Variables, backbone: Variables) -> Variables:
    """Put the weights of a network that was trained to classify under a detector's heads.

    Args:
      detector: its variables.
      backbone: of the classifier; its last layers, which a backbone does not have, are left out.

    Returns:
      Variables like the detector's.

    Raises:
      UserError: a layer of the backbone is missing or has another shape; names the first.
    """
    frozen = detector.stats.get("frozen", {}).get("backbone", {})
    params = {
        **detector.params,
        "backbone": _like(detector.params.get("backbone", {}), backbone.params, "params"),
    }
    stats = dict(detector.stats)
    for name, part in stats.items():
        if name == "frozen":
            stats[name] = {**part, "backbone": _like(frozen, backbone.params, "params")}
        else:
            found = _like(part["backbone"], backbone.stats[name], name)
            stats[name] = {**part, "backbone": found}
    return Variables(params, stats)


def _like(wanted: PyTree, given: PyTree, path: str) -> PyTree:
    """The arrays of `given` at the places of `wanted`."""
    if not isinstance(wanted, Mapping):
        if wanted.shape != given.shape:
            raise UserError(f"backbone: {path} has shape {given.shape}, not {wanted.shape}")
        return given
    for name in wanted:
        if name not in given:
            raise UserError(f"backbone: {path}/{name} is missing; is it another network?")
    return {name: _like(part, given[name], f"{path}/{name}") for name, part in wanted.items()}
