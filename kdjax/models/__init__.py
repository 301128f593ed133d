"""Networks by name, each a pair of pure functions (`kdjax.types.Model`)."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from kdjax.models.cnn import cnn
from kdjax.models.convert import (
    flatten,
    from_safetensors,
    from_torch,
    restore,
    to_safetensors,
    torch_names,
)
from kdjax.models.linen import from_linen, with_adapter
from kdjax.models.mlp import mlp
from kdjax.models.resnet import resnet
from kdjax.models.wide_resnet import wide_resnet
from kdjax.types import Model, UserError, Variables

__all__ = [
    "build",
    "flatten",
    "from_linen",
    "from_safetensors",
    "load_torch",
    "names",
    "parameter_count",
    "restore",
    "to_safetensors",
    "with_adapter",
]

_X4 = (32, 64, 128, 256)
_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    **{f"resnet{d}": functools.partial(resnet, depth=d) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": functools.partial(resnet, depth=d, widths=_X4) for d in (8, 32)},
    **{
        f"wrn_{depth}_{widen}": functools.partial(wide_resnet, depth=depth, widen=widen)
        for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
    },
}


def build(name: str, *, num_classes: int, **options: Any) -> Model:
    """Make a network for images [batch, height, width, channel].

    Args:
      name: one of `names()`, or "wrn_<depth>_<widen>" with any depth 6n + 4.
      num_classes: width of the logits.
      **options: of that network, all optional: `dtype` (of the computation; parameters and
        logits stay float32), `axis_name` (batch norm over all devices of that pmap axis),
        "mlp": `hidden`; "cnn": `widths`; "resnet...": `shortcut`.

    Raises:
      UserError: unknown name or option, or an option with an impossible value.

    >>> import jax, jax.numpy as jnp
    >>> model = build("mlp", num_classes=10, hidden=(32,))
    >>> variables = jax.jit(model.init)(jax.random.key(0), {"image": jnp.zeros((2, 8, 8, 1))})
    >>> parameter_count(variables)
    2410
    """
    factory = _factory(name)
    fixed = factory.keywords if isinstance(factory, functools.partial) else {}
    valid = set(inspect.signature(factory).parameters) - set(fixed) - {"num_classes"}
    for option in options:
        if option not in valid:
            known = ", ".join(sorted(valid))
            raise UserError(f'model "{name}" has no option "{option}"; it has: {known}')
    if num_classes < 1:
        raise UserError(f'model "{name}": num_classes is {num_classes}: use at least 1')
    return from_linen(factory(num_classes=num_classes, **options))


def names() -> list[str]:
    """List the networks that `build` knows."""
    return list(_NETWORKS)


def parameter_count(variables: Variables) -> int:
    """Count the trainable numbers; works on arrays and on shapes (`jax.eval_shape`)."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables.params))


def load_torch(name: str, tensors: Mapping[str, np.ndarray]) -> Variables:
    """Read a PyTorch checkpoint of a "resnet..." or "wrn_..." into our variables.

    The number of classes is that of the last linear layer. A ResNet without projections gets
    the variables of `shortcut="pad"`: build the model with that option.

    Args:
      name: as for `build`.
      tensors: by PyTorch's names and in its layouts (convolutions OIHW); see `convert`.

    Raises:
      UserError: the name is no such network; tensors are missing, unexpected or misshapen.
    """
    factory = _factory(name)
    if not name.startswith(("resnet", "wrn_")):
        raise UserError(f'model "{name}" has no PyTorch names; a "resnet..." or "wrn_..." has')
    found = torch_names(tensors)
    weight = found.get("fc.weight")
    if weight is None or weight.ndim != 2:
        near = ", ".join(list(found)[-2:]) or "nothing"
        raise UserError(f'model "{name}": no "fc.weight" [classes, width]; the last are {near}')
    options = {}
    if name.startswith("resnet") and not any(".downsample." in tensor for tensor in found):
        options = {"shortcut": "pad"}
    module = factory(num_classes=weight.shape[0], **options)
    return from_torch(from_linen(module), found, what=f'"{name}"')


def _factory(name: str) -> Callable[..., nn.Module]:
    if name in _NETWORKS:
        return _NETWORKS[name]
    if match := re.fullmatch(r"wrn_(\d+)_(\d+)", name):
        return functools.partial(wide_resnet, depth=int(match[1]), widen=int(match[2]))
    near = difflib.get_close_matches(name, _NETWORKS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise UserError(f'unknown model "{name}"{hint} Models: {", ".join(names())}')
