"""Names of arrays in the PyTorch code of networks whose weights are published.

The path "params/layer1_0/shortcut_conv/kernel" becomes "layer1.0.downsample.0.weight". The rules
differ between families of networks in the last layer and in the shortcuts.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.errors import UserError
from kdjax.models.io import vit_names

# Names of the last linear layer and of a ResNet's projections; `normalise` converts them all.
_HEADS = ("fc", "linear", "classifier", "classifier.0")
# more names of last layers; they come first, because "classifier.0" may then be an earlier layer
_LATER_HEADS = ("classifier.6", "classifier.1", "head", "heads.head")
_PROJECTIONS = ("downsample", "shortcut")
_FIRST_KERNELS = (
    "conv1.weight", "conv1.0.weight", "block0.0.weight", "model.0.0.weight", "features.0.weight",
    "features.0.0.weight", "conv_proj.weight", "patch_embed.proj.weight",
)  # fmt: skip
# levels that wrappers of a network or of a layer add to names, and their counters
_WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_COUNTERS = ("num_batches_tracked", "n_averaged")


class Dialect(NamedTuple):
    """Names of the last layer and of the projections in the PyTorch code of a family.

    `names`: all layers of a vision transformer, kdjax's name -> PyTorch's; None for others.
    """

    head: str
    projection: str | None = None
    names: Mapping[str, str] | None = None


def find_dialect(name: str, *, window: int) -> Dialect:
    """Return the dialect of a network's PyTorch code.

    `window`, the height of the first kernel, distinguishes the two stems of "ResNet...".

    Raises:
      UserError: no PyTorch code of that network is known.
    """
    if name.startswith(("vit", "deit")):
        names = vit_names.TORCHVISION if name.startswith("vit_b_") else vit_names.TIMM
        return Dialect(names["fc"], names=names)
    if name in ("mobilenet_v2", "mobilenetv2_100"):
        return Dialect("classifier.1")
    if name.endswith("_bn"):
        return Dialect("classifier.6")
    if name.startswith("wrn_"):
        return Dialect("fc", "convShortcut")
    if name.startswith("resnet"):
        return Dialect("fc", "downsample")
    if name.startswith("ResNet"):
        return Dialect("fc", "downsample") if window == 7 else Dialect("linear", "shortcut")
    if name.startswith("Shuffle"):
        return Dialect("linear")
    heads = {"MobileNetV1": "fc", "MobileNetV2": "classifier.0"}
    if name in heads or name.startswith("vgg"):
        return Dialect(heads.get(name, "classifier"))
    raise UserError(
        f'model "{name}" has no PyTorch names; those of a resnet, ResNet, wrn, vgg, MobileNet, '
        "Shuffle, vit or deit are known"
    )


def to_name(path: str, dialect: Dialect) -> str:
    """Convert a flat name ("params/...", "stats/batch_stats/...") to PyTorch's."""
    if dialect.names is not None:
        return vit_names.to_name(path, dialect.names)
    *layers, leaf = path.removeprefix("params/").removeprefix("stats/batch_stats/").split("/")
    kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    layers = [_layer(layer, dialect) for layer in layers]
    return ".".join([*layers, kinds.get(leaf, leaf)])


def strip_prefixes(tensors: Mapping[str, Any], roots: Collection[str] = ()) -> dict[str, Any]:
    """Drop the levels of wrappers, any prefix that all names share, and counters.

    A prefix ends before one of `roots`, the first levels of a network's own names.

    Raises:
      UserError: two tensors then have one name.

    >>> list(strip_prefixes({"net.module.fc.weight": 0, "net._orig_mod.conv1.weight": 0}))
    ['fc.weight', 'conv1.weight']
    """
    plain: dict[str, Any] = {}
    for name, tensor in tensors.items():
        short = _WRAPPERS.sub("", name)
        if short in plain:
            raise UserError(f"{name!r} and another tensor are both {short!r}; save one of them")
        if short.rpartition(".")[2] not in _COUNTERS:
            plain[short] = tensor
    while len(first := {name.partition(".")[0] for name in plain}) == 1:
        rest = {name.partition(".")[2]: tensor for name, tensor in plain.items()}
        if "" in rest or not any("." in name for name in rest) or first <= {*roots}:
            break
        plain = rest
    return plain


def normalise(tensors: Mapping[str, Any], dialect: Dialect) -> dict[str, np.ndarray]:
    """Drop prefixes and counters, and rename heads and projections to the dialect's."""
    if dialect.names is not None:
        return vit_names.split(strip_prefixes(tensors))
    normalised = {}
    for plain, tensor in strip_prefixes(tensors).items():
        head, _, kind = plain.rpartition(".")
        if head in _HEADS and dialect.head in _HEADS:
            plain = f"{dialect.head}.{kind}"
        if dialect.projection in _PROJECTIONS:
            for other in _PROJECTIONS:
                plain = plain.replace(f".{other}.", f".{dialect.projection}.")
        normalised[plain] = np.asarray(tensor)
    return normalised


def last_layer(tensors: Mapping[str, Any], what: str) -> np.ndarray:
    """Find the weight [classes, width] of the last linear layer.

    Raises:
      UserError: there is none; the message starts with `what`.
    """
    plain = strip_prefixes(tensors)
    for head in (*_LATER_HEADS, *_HEADS):
        weight = plain.get(f"{head}.weight")
        if weight is not None and np.ndim(weight) == 2:
            return np.asarray(weight)
    last = ", ".join(list(plain)[-2:]) or "nothing"
    raise UserError(
        f'{what}: no "fc.weight" [classes, width] or the like; the last are {last}; '
        "give the prefix of one network among several as --key"
    )


def first_kernel(tensors: Mapping[str, Any]) -> np.ndarray | None:
    """Find the weight OIHW of the first convolution of any network with PyTorch names."""
    plain = strip_prefixes(tensors)
    kernels = (np.asarray(plain[name]) for name in _FIRST_KERNELS if name in plain)
    return next((kernel for kernel in kernels if kernel.ndim == 4), None)


def _layer(layer: str, dialect: Dialect) -> str:
    if layer == "fc":
        return dialect.head
    if dialect.projection == "convShortcut":
        if layer == "shortcut":
            return dialect.projection
        return re.sub(r"^(block\d+)_(\d+)$", r"\1.layer.\2", layer)
    if layer in ("shortcut_conv", "shortcut_bn"):
        return f"{dialect.projection}.{0 if layer == 'shortcut_conv' else 1}"
    return layer.replace("_", ".")
