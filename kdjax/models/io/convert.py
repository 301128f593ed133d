"""Weights in and out: PyTorch's tensors, safetensors files, flat names and trees."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from kdjax.errors import CORRUPT_FILE_ERRORS
from kdjax.models.io import torch_names
from kdjax.types import Model, PyTree, UserError, Variables

__all__ = [
    "check_tensors",
    "first_kernel",
    "flatten",
    "from_safetensors",
    "from_torch",
    "restore",
    "to_safetensors",
    "to_torch",
    "write_safetensors",
]

_MAX_LISTED = 12  # names in an error, of each kind


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
      UserError: tensors are missing, unexpected or of another shape; lists them (twelve of a
        kind at most).
    """
    expected = flatten(template)
    shapes = {name: tuple(leaf.shape) for name, leaf in expected.items()}
    check_tensors(shapes, tensors, "the weights do not fit this network")

    def rebuild(tree: PyTree, prefix: str) -> PyTree:
        flat, structure = jax.tree.flatten(tree)
        names = [name for name in expected if name.startswith(prefix)]
        leaves = [jnp.asarray(tensors[n], x.dtype) for n, x in zip(names, flat, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    return Variables(rebuild(template.params, "params/"), rebuild(template.stats, "stats/"))


def to_safetensors(
    variables: Variables, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write all arrays of a network under their flat names, as `write_safetensors` does.

    Raises:
      UserError: the file cannot be written.
    """
    write_safetensors(flatten(variables), path, metadata)


def write_safetensors(
    arrays: Mapping[str, Any],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays by name; the file appears whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    # safetensors writes the raw buffer: a transposed view would be stored in the wrong order.
    plain = {name: np.array(leaf, order="C") for name, leaf in arrays.items()}
    try:
        safetensors.numpy.save_file(plain, partial, dict(metadata or {}))
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
    except (
        *CORRUPT_FILE_ERRORS,
        safetensors.SafetensorError,
        AttributeError,
    ) as error:  # a type numpy lacks
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a whole safetensors file: {said}") from error


def from_torch(name: str, model: Model, tensors: Mapping[str, np.ndarray]) -> Variables:
    """Turn PyTorch's tensors of a network into variables of the same network of ours.

    Args:
      name: of the network, as for `models.build`.
      model: the network that the tensors belong to.
      tensors: by PyTorch's names; convolutions OIHW, linear layers [out, in]. A "module." in
        front and num_batches_tracked are ignored.

    Raises:
      UserError: tensors are missing, unexpected or of another shape; lists them (twelve of
        a kind at most) by PyTorch's names and in its layout.
    """
    first = first_kernel(tensors)
    window, channels = (3, 3) if first is None else (first.shape[2], first.shape[1])
    said = torch_names.dialect(name, window=window)
    found = torch_names.normalise(tensors, said)
    image = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), {"image": image})
    expected = flatten(template)
    names = {path: torch_names.to_name(path, said) for path in expected}
    shapes = {names[path]: torch_names.shapes_of(leaf.shape) for path, leaf in expected.items()}
    check_tensors(shapes, found, f'the tensors are not those of "{name}"')
    return restore(template, {path: _from_torch_layout(found[names[path]]) for path in expected})


def to_torch(name: str, variables: Variables) -> dict[str, np.ndarray]:
    """Turn variables of a network into tensors as its PyTorch code names and lays them out.

    The inverse of `load_torch`, exactly. The counters num_batches_tracked, which PyTorch fills
    in by itself, are left out.

    Raises:
      UserError: no PyTorch code of that network is known.
    """
    flat = flatten(variables)
    first = next((leaf for leaf in flat.values() if np.ndim(leaf) == 4), None)
    said = torch_names.dialect(name, window=3 if first is None else first.shape[0])
    return {torch_names.to_name(path, said): _to_torch_layout(flat[path]) for path in flat}


def first_kernel(tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Find the weight OIHW of the first convolution of any network that `from_torch` knows."""
    for name in ("conv1.weight", "conv1.0.weight", "block0.0.weight", "model.0.0.weight"):
        for tensor in (tensors.get(name), tensors.get(f"module.{name}")):
            if tensor is not None and np.ndim(tensor) == 4:
                return np.asarray(tensor)
    return None


def _from_torch_layout(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _to_torch_layout(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T, order="C")


def check_tensors(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], what: str
) -> None:
    """Refuse tensors that are not exactly those expected.

    Raises:
      UserError: `what`, then the names that are missing, unexpected or of another shape.
    """
    missing = [name for name in shapes if name not in tensors]
    extra = [name for name in tensors if name not in shapes]
    misshapen = [
        f"{name} {tuple(np.shape(tensors[name]))} instead of {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(np.shape(tensors[name])) != shape
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("of another shape", misshapen))
    faults = [f"{kind}: {_listed(names)}" for kind, names in kinds if names]
    if faults:
        raise UserError(f"{what}; {'; '.join(faults)}")


def _listed(names: list[str]) -> str:
    # Another depth differs in hundreds of tensors; the first few say so.
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
