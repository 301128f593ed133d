"""Networks by name, each a pair of pure functions (`kdjax.types.Model`)."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from kdjax.errors import UserError, did_you_mean
from kdjax.models import user_code
from kdjax.models.detection.faster_rcnn import DetectorOptions, faster_rcnn
from kdjax.models.io import torch_names, vit_names
from kdjax.models.io.convert import from_torch
from kdjax.models.layers.from_linen import from_linen
from kdjax.models.layers.layers import compute_dtype
from kdjax.models.lipschitz.mlp import lipschitz_mlp
from kdjax.models.text.language_model import as_language_model
from kdjax.models.text.multiple_choice import REPEAT_PROMPT, with_choices
from kdjax.models.transformers import TRANSFORMERS
from kdjax.models.vision.cnn import cnn
from kdjax.models.vision.mlp import mlp
from kdjax.models.vision.mobilenet import MobileNetV1, mobilenet_v2
from kdjax.models.vision.published import MobileNetV2Imagenet, ResNet10T, VggBn
from kdjax.models.vision.resnet import resnet, resnet_imagenet
from kdjax.models.vision.shufflenet import ShuffleV1, ShuffleV2
from kdjax.models.vision.vgg import vgg
from kdjax.models.vision.wide_resnet import wide_resnet
from kdjax.types import Model, Variables

_X4 = (32, 64, 128, 256)
_NETWORKS: dict[str, Callable[..., nn.Module | Model]] = {
    "mlp": mlp,
    "cnn": cnn,
    **{f"resnet{d}": functools.partial(resnet, depth=d) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": functools.partial(resnet, depth=d, widths=_X4) for d in (8, 32)},
    **{
        f"wrn_{depth}_{widen}": functools.partial(wide_resnet, depth=depth, widen=widen)
        for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
    },
    **{f"vgg{d}": functools.partial(vgg, depth=d) for d in (8, 11, 13, 16, 19)},
    **{f"ResNet{d}": functools.partial(resnet_imagenet, depth=d) for d in (10, 18, 34, 50, 101)},
    "MobileNetV1": MobileNetV1,
    "MobileNetV2": mobilenet_v2,
    "ShuffleV1": ShuffleV1,
    "ShuffleV2": ShuffleV2,
    **{f"vgg{d}_bn": functools.partial(VggBn, depth=d) for d in (11, 13, 16, 19)},
    **dict.fromkeys(("mobilenet_v2", "mobilenetv2_100"), MobileNetV2Imagenet),
    "resnet10t": ResNet10T,
    "lipschitz_mlp": lipschitz_mlp,
    **{name: family.factory for name, family in TRANSFORMERS.items()},
    "faster_rcnn": faster_rcnn,
}
# networks whose factory takes one dataclass of options
_OPTIONS: dict[str, Callable[..., Any]] = {
    **{name: family.options for name, family in TRANSFORMERS.items()},
    "faster_rcnn": DetectorOptions,
}


def build(name: str, *, num_classes: int, **options: Any) -> Model:
    """Build a network for images [batch, height, width, channel] or for tokens of text.

    "bert" and its kin classify texts, "t5" and the decoders rank `num_classes` answers
    (`with_choices`). See `bert.bert`, `t5.t5`, `gpt_neo.gpt_neo`, `llama.llama` and `vit.vit` for
    their batches and features, and `BertOptions`, ... beside them for their options.

    Args:
      name: one of `names()`, "wrn_<depth>_<widen>" with any depth 6n + 4, or the Python path of a
        network of your own, "FILE.py:NAME" or "MODULE:NAME" (`user_code.build_network`).
      num_classes: width of the logits; 1 is a regression.
      **options: options of that network, all optional: `dtype` (of the computation; parameters
        and logits are float32), `axis_name` (batch norm over all devices of that pmap axis),
        "mlp": `hidden`; "cnn": `widths`; "resnet...": `shortcut`; "ResNet...": `stem`
        ("cifar" by default, or "imagenet"); "MobileNetV2": `width`.

    Raises:
      UserError: unknown name or option, or an option with an impossible value.

    >>> import jax, jax.numpy as jnp
    >>> model = build("mlp", num_classes=10, hidden=(32,))
    >>> variables = jax.jit(model.init)(jax.random.key(0), {"image": jnp.zeros((2, 8, 8, 1))})
    >>> parameter_count(variables)
    2410
    """
    if num_classes < 1:
        raise UserError(f'model "{name}": num_classes is {num_classes}: use at least 1')
    options["dtype"] = compute_dtype(options.get("dtype"))
    if user_code.is_path(name):
        return user_code.build_network(name, {"num_classes": num_classes, **options})
    factory = _factory(name)
    _check_options(name, options)
    prompt = TRANSFORMERS[name].prompt if name in TRANSFORMERS else None
    if prompt is not None:
        language_model: Any = factory(_OPTIONS[name](**options))
        return with_choices(language_model, prompt, num_choices=num_classes)
    if name in _OPTIONS:
        options = {"options": _OPTIONS[name](num_classes=num_classes, **options)}
    else:
        options["num_classes"] = num_classes
    network = factory(**options)
    return network if isinstance(network, Model) else from_linen(network)


def build_language_model(name: str, *, num_classes: int, **options: Any) -> Model:
    """Build a decoder whose rows are tokens; see `text.language_model.as_language_model`.

    Args:
      name: a decoder of `names()`, or the Python path of a network of your own that gives logits
        [batch, length, vocabulary].
      num_classes: the size of the vocabulary, for networks of your own; others have `vocab_size`.
      **options: as for `build`.

    Raises:
      UserError: as `build`; a network that is no decoder.
    """
    options["dtype"] = compute_dtype(options.get("dtype"))
    if user_code.is_path(name):
        own = user_code.build_network(name, {"num_classes": num_classes, **options})
        return as_language_model(own)
    decoders = [key for key, family in TRANSFORMERS.items() if family.prompt is REPEAT_PROMPT]
    if name not in decoders:
        raise UserError(f'model "{name}" is no decoder of texts; there are {", ".join(decoders)}')
    _check_options(name, options)
    family = TRANSFORMERS[name]
    return as_language_model(family.factory(family.options(**options)))


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = default_options(name)
    for option in options:
        if option not in known:
            names_known = ", ".join(sorted(known))
            raise UserError(f'model "{name}" has no option "{option}"; it has: {names_known}')


def default_options(name: str) -> dict[str, Any]:
    """Return the options of a network with their defaults, without `num_classes`.

    Raises:
      UserError: an unknown name.

    >>> default_options("cnn")
    {'widths': (16, 32, 64), 'dtype': None, 'axis_name': None}
    """
    if user_code.is_path(name):
        return user_code.default_options(name)
    factory = _factory(name)
    fixed = factory.keywords if isinstance(factory, functools.partial) else {}
    declared = inspect.signature(_OPTIONS.get(name, factory)).parameters
    left_out = {*fixed, "num_classes", "name", "parent"}  # the last two are Flax's
    return {key: entry.default for key, entry in declared.items() if key not in left_out}


def names() -> list[str]:
    """List the networks that `build` knows."""
    return list(_NETWORKS)


def parameter_count(variables: Variables) -> int:
    """Return the number of parameters of variables, or of their shapes (`jax.eval_shape`)."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables.params))


def load_torch(name: str, tensors: Mapping[str, np.ndarray]) -> Variables:
    """Convert a PyTorch checkpoint of any image network but "mlp" and "cnn" to variables.

    The number of classes is that of the last linear layer. Build the model with it and with
    `torch_options`.

    Args:
      name: as for `build`.
      tensors: with PyTorch's names and layouts (convolutions OIHW, linear layers [out, in]).
        Prefixes that all share, those of wrappers ("module.", "_orig_mod.") and counters are
        ignored.

    Raises:
      UserError: another network; tensors are missing, unexpected or misshapen.
    """
    options = torch_options(name, tensors)
    classes = torch_names.last_layer(tensors, f'model "{name}"').shape[0]
    return from_torch(name, build(name, num_classes=classes, **options), tensors)


def torch_options(name: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the options of `build` for the network that PyTorch's tensors belong to.

    A "resnet..." without projections has `shortcut="pad"`; a "ResNet..." whose first kernel is
    7x7 has `stem="imagenet"`; the width of a "MobileNetV2" is that of its first layer, the
    `image_size` of a "vit_..." that of its positions.

    Raises:
      UserError: no PyTorch code of that network is known.
    """
    first = torch_names.first_kernel(tensors)
    window = 3 if first is None else first.shape[2]
    torch_names.find_dialect(name, window=window)
    if name.startswith(("vit_", "deit_")) and first is not None:
        side = vit_names.image_side(tensors, first)
        return {} if side in (None, default_options(name)["image_size"]) else {"image_size": side}
    if name.startswith("resnet"):
        projects = any(".downsample." in tensor or ".shortcut." in tensor for tensor in tensors)
        return {} if projects else {"shortcut": "pad"}
    if name.startswith("ResNet"):
        return {"stem": "imagenet"} if window == 7 else {}
    if name == "MobileNetV2" and first is not None and first.shape[0] != 16:
        return {"width": first.shape[0] / 32}
    return {}


def _factory(name: str) -> Callable[..., nn.Module | Model]:
    if name in _NETWORKS:
        return _NETWORKS[name]
    if match := re.fullmatch(r"wrn_(\d+)_(\d+)", name):
        return functools.partial(wide_resnet, depth=int(match[1]), widen=int(match[2]))
    hint = did_you_mean(name, _NETWORKS)
    raise UserError(f'unknown model "{name}"; {hint}Models: {", ".join(names())}')
