"""Backbones of a detector: ImageNet networks without their last layer, and frozen parts."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from kdjax.errors import UserError
from kdjax.models.vision.mobilenet import mobilenet_v2
from kdjax.models.vision.resnet import resnet_imagenet
from kdjax.types import PyTree, Variables

STRIDES = (4, 8, 16, 32, 64)  # of the levels of stages 1 to 4, and of one more
_RESNETS = {f"ResNet{depth}": depth for depth in (10, 18, 34, 50, 101)}
# names of the layers of each stage; the stem is the first
_STAGES = {
    "ResNet": (r"conv1|bn1", r"layer1_.*", r"layer2_.*", r"layer3_.*", r"layer4_.*"),
    "MobileNetV2": (
        r"conv1_.*", r"blocks_[01]_.*", r"blocks_2_.*", r"blocks_[34]_.*", r"blocks_[56]_.*",
    ),
}  # fmt: skip


def make_backbone(
    name: str, options: Mapping[str, Any], *, dtype: Any, axis_name: str | None
) -> nn.Module:
    """Return a network whose features "stage1" to "stage4" have strides 4 to 32.

    Raises:
      UserError: another network, or an unknown option.
    """
    if name not in (*_RESNETS, "MobileNetV2"):
        raise UserError(f"backbone is {name!r}: use one of {', '.join(_RESNETS)}, MobileNetV2")
    if unknown := sorted(set(options) - {"width"}):
        raise UserError(f"backbone_options.{unknown[0]}: no such option; the only one is width")
    common = {"num_classes": 0, "stem": "imagenet", "dtype": dtype, "axis_name": axis_name}
    if name == "MobileNetV2":
        return mobilenet_v2(**common, **{"width": 1.0, **options})
    return resnet_imagenet(depth=_RESNETS[name], **common, **options)


def frozen_parts(name: str, *, norm: bool, stages: int) -> Callable[[tuple[str, ...]], bool]:
    """Return a predicate of paths that is True for the frozen parameters of a detector.

    Args:
      name: of the backbone.
      norm: freeze its batch norms.
      stages: number of first stages to freeze, the stem included.

    Raises:
      UserError: more stages than exist, or frozen stages without `norm` (the statistics of a
        frozen stage are frozen, too).
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


def split_frozen(
    params: PyTree, frozen: Callable[[tuple[str, ...]], bool]
) -> tuple[PyTree, PyTree]:
    """Split nested params into trained and frozen ones, without empty dicts."""
    parts: tuple[dict, dict] = ({}, {})
    for path, leaf in flatten_dict(params).items():
        parts[frozen(path)][path] = leaf
    return unflatten_dict(parts[False]), unflatten_dict(parts[True])


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Merge two nested dicts; the inverse of `split_frozen`."""
    return unflatten_dict({**flatten_dict(a), **flatten_dict(b)})


def with_backbone(detector: Variables, backbone: Variables) -> Variables:
    """Replace the backbone of a detector by the weights of a trained classifier.

    Args:
      detector: its variables.
      backbone: variables of the classifier; its last layers are ignored.

    Returns:
      Variables like the detector's.

    Raises:
      UserError: a layer of the backbone is missing or has another shape, or the classifier has more
        layers; the error names the first.
    """
    parts = (detector.params, detector.stats.get("frozen", {}))
    known = {"fc", "conv2_0", "conv2_1"}.union(*(part.get("backbone", {}) for part in parts))
    if more := sorted(set(backbone.params) - known):
        raise UserError(f"backbone: it has no layer {more[0]}: use weights of this backbone")
    sources = {"frozen": ("params", backbone.params)}

    def replace(tree: Mapping[str, Any], name: str, arrays: PyTree) -> dict[str, Any]:
        return {**tree, "backbone": _select(tree.get("backbone", {}), arrays, name)}

    params = replace(detector.params, "params", backbone.params)
    stats = {
        name: replace(tree, *sources.get(name, (name, backbone.stats.get(name, {}))))
        for name, tree in detector.stats.items()
    }
    return Variables(params, stats)


def _select(template: PyTree, arrays: PyTree, path: str) -> PyTree:
    """Return the arrays at the paths of the template."""
    if not isinstance(template, Mapping):
        if template.shape != arrays.shape:
            raise UserError(f"backbone: {path} has shape {arrays.shape}, not {template.shape}")
        return arrays
    for name in template:
        if name not in arrays:
            raise UserError(f"backbone: {path}/{name} is missing: use weights of this backbone")
    return {name: _select(part, arrays[name], f"{path}/{name}") for name, part in template.items()}
