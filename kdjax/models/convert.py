"""Weights in and out: PyTorch's tensor names, safetensors files, flat names and trees."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from kdjax.types import Model, PyTree, UserError, Variables

__all__ = ["flatten", "from_safetensors", "from_torch", "restore", "to_safetensors"]

# Ours -> PyTorch's, replaced in this order within "layer1_0/shortcut_conv/kernel". The names on
# the right are those of the usual CIFAR checkpoints: a ResNet's blocks are layer1.0, a WRN's
# block1.layer.0; the projection is downsample.0 or convShortcut.
_TORCH_NAMES = (
    ("shortcut_conv/", "downsample/0/"),
    ("shortcut_bn/", "downsample/1/"),
    ("shortcut/", "convShortcut/"),
    ("/kernel", "/weight"),
    ("/scale", "/weight"),
    ("/mean", "/running_mean"),
    ("/var", "/running_var"),
)


def flatten(variables: Variables) -> dict[str, Any]:
    """Name every array of a network by its path, "params/conv1/kernel" or "stats/...".

    Raises:
      UserError: a part of a path holds "/", so that the name could not be taken apart again.
    """
    flat: dict[str, Any] = {}
    for root, tree in (("params", variables.params), ("stats", variables.stats)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            parts = [root, *(str(getattr(part, "key", part)) for part in path)]
            if any("/" in part for part in parts):
                raise UserError(f'the name {parts} of a parameter holds a "/"; rename that layer')
            flat["/".join(parts)] = leaf
    return flat


def restore(template: Variables, tensors: Mapping[str, Any]) -> Variables:
    """Put flat arrays back into the tree of a network.

    Args:
      template: the network's variables, or their shapes (`jax.eval_shape(model.init, ...)`).
      tensors: as `flatten` names them.

    Returns:
      Variables like the template, in its types.

    Raises:
      UserError: tensors are missing, unexpected or of another shape; lists all of them.
    """
    expected = flatten(template)
    shapes = {name: tuple(leaf.shape) for name, leaf in expected.items()}
    _check(shapes, tensors, "the weights do not fit this network")

    def rebuild(tree: PyTree, prefix: str) -> PyTree:
        flat, structure = jax.tree.flatten(tree)
        names = [name for name in expected if name.startswith(prefix)]
        leaves = [jnp.asarray(tensors[n], x.dtype) for n, x in zip(names, flat, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    return Variables(rebuild(template.params, "params/"), rebuild(template.stats, "stats/"))


def to_safetensors(
    variables: Variables, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write all arrays of a network under their flat names; the file appears whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    # safetensors writes the raw buffer: a transposed view would be stored in the wrong order.
    arrays = {name: np.array(leaf, order="C") for name, leaf in flatten(variables).items()}
    try:
        safetensors.numpy.save_file(arrays, partial, dict(metadata or {}))
        os.replace(partial, target)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot be written: {error}") from error


def from_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file by name; give them to `restore` or `load_torch`.

    Raises:
      UserError: the file is missing or is no whole safetensors file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .safetensors file")
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error


def from_torch(model: Model, tensors: Mapping[str, np.ndarray], *, what: str) -> Variables:
    """Turn PyTorch's tensors of a ResNet or WRN into variables of the same network of ours.

    Args:
      model: the network that the tensors belong to.
      tensors: by PyTorch's names; convolutions OIHW, linear layers [out, in]. A "module." in
        front and num_batches_tracked are ignored, and "linear." is read as "fc.".
      what: names the network in errors.

    Raises:
      UserError: tensors are missing, unexpected or of another shape; lists all of them, by
        PyTorch's names and in its layout.
    """
    found = torch_names(tensors)
    channels = found["conv1.weight"].shape[1] if _is_kernel(found.get("conv1.weight")) else 3
    image = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), {"image": image})
    expected = flatten(template)
    names = {name: _torch_name(name) for name in expected}
    shapes = {names[name]: _torch_shape(leaf.shape) for name, leaf in expected.items()}
    _check(shapes, found, f"the tensors are not those of {what}")
    return restore(template, {name: _from_torch_layout(found[names[name]]) for name in expected})


def torch_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Normalise the names of a checkpoint: see `from_torch`."""
    found = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("module.")
        if plain.startswith("linear."):
            plain = "fc." + plain.removeprefix("linear.")
        if not plain.endswith("num_batches_tracked"):
            found[plain] = np.asarray(tensor)
    return found


def _is_kernel(tensor: np.ndarray | None) -> bool:
    return tensor is not None and tensor.ndim == 4


def _torch_name(name: str) -> str:
    name = name.removeprefix("params/").removeprefix("stats/batch_stats/")
    for ours, theirs in _TORCH_NAMES:
        name = name.replace(ours, theirs)
    first, _, rest = name.partition("/")
    stage, block, index = first.partition("_")
    if block:
        first = f"{stage}.layer.{index}" if stage.startswith("block") else f"{stage}.{index}"
    return ".".join([first, *rest.split("/")])


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape[::-1])


def _from_torch_layout(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _check(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], what: str) -> None:
    missing = [name for name in shapes if name not in tensors]
    extra = [name for name in tensors if name not in shapes]
    misshapen = [
        f"{name} {tuple(np.shape(tensors[name]))} instead of {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(np.shape(tensors[name])) != shape
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("of another shape", misshapen))
    faults = [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]
    if faults:
        raise UserError(f"{what}; {'; '.join(faults)}")
