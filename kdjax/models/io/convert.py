"""Conversion of weights: PyTorch's tensors, safetensors files, flat names and trees."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from kdjax.errors import CORRUPT_FILE_ERRORS, UserError
from kdjax.models.io import torch_names, vit_names
from kdjax.types import Model, PyTree, Variables

_MAX_LISTED = 12  # names in an error, of each kind
# path of `flatten` -> name of the tensor in a file, and kdjax's axes in the order of the file's
Layout = Mapping[str, tuple[str, tuple[int, ...]]]


def flatten(variables: Variables) -> dict[str, Any]:
    """Return the arrays of a network by path, such as "params/conv1/kernel" or "stats/...".

    Raises:
      UserError: a part of a path contains "/", so that `restore` could not split the name.
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
    """Build the tree of a network from flat arrays; the inverse of `flatten`.

    Args:
      template: the network's variables, or their shapes (`jax.eval_shape(model.init, ...)`).
      tensors: as `flatten` names them.

    Returns:
      Variables with the structure and types of the template.

    Raises:
      UserError: tensors are missing, unexpected or of another shape; lists at most twelve of each
        kind.
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
    """Write arrays by name, atomically.

    Raises:
      UserError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    # safetensors writes the raw buffer: a transposed view would be stored in the wrong order.
    plain = {name: np.array(leaf, order="C") for name, leaf in arrays.items()}
    try:
        # save_file would make a file that only its owner may read
        partial.write_bytes(safetensors.numpy.save(plain, dict(metadata or {})))
        os.replace(partial, target)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot be written: {error}") from error


def from_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file by name, for `restore` or `load_torch`.

    Raises:
      UserError: the file is missing or not a complete safetensors file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .safetensors file")
    try:
        return safetensors.numpy.load_file(path)
    except AttributeError as error:  # numpy lacks some types
        reason = str(error)[-60:]
        raise UserError(
            f"{path}: holds numbers of a type that is not read ({reason}); save them as float32, "
            "float16 or bfloat16"
        ) from error
    except (*CORRUPT_FILE_ERRORS, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a complete safetensors file: {reason}") from error


def from_torch(name: str, model: Model, tensors: Mapping[str, np.ndarray]) -> Variables:
    """Convert PyTorch's tensors of a network to variables.

    Args:
      name: of the model, as for `models.build`.
      model: the network that the tensors belong to.
      tensors: as for `load_torch`.

    Raises:
      UserError: tensors are missing, unexpected or of another shape; lists at most twelve of each
        kind, with PyTorch's names and layouts.
    """
    first = torch_names.first_kernel(tensors)
    window, channels = (3, 3) if first is None else (first.shape[2], first.shape[1])
    dialect = torch_names.find_dialect(name, window=window)
    tensors = torch_names.normalise(tensors, dialect)
    side = None if first is None else vit_names.image_side(tensors, first)
    image = jax.ShapeDtypeStruct((1, side or 32, side or 32, channels), jnp.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), {"image": image})
    layout = _torch_layout(flatten(template), dialect)
    return from_file_layout(template, tensors, layout, f'the tensors are not those of "{name}"')


def to_torch(name: str, variables: Variables) -> dict[str, np.ndarray]:
    """Convert variables to tensors with the names and layouts of the network's PyTorch code.

    The exact inverse of `load_torch`. The counters num_batches_tracked, which PyTorch adds itself,
    are left out.

    Raises:
      UserError: no PyTorch code of that network is known.
    """
    flat = flatten(variables)
    first = next((leaf for leaf in flat.values() if np.ndim(leaf) == 4), None)
    dialect = torch_names.find_dialect(name, window=3 if first is None else first.shape[0])
    return vit_names.fuse(to_file_layout(variables, _torch_layout(flat, dialect)))


def _torch_layout(flat: Mapping[str, Any], dialect: torch_names.Dialect) -> Layout:
    axes = {4: (3, 2, 0, 1), 3: (0, 1, 2), 2: (1, 0), 1: (0,), 0: ()}
    return {p: (torch_names.to_name(p, dialect), axes[np.ndim(x)]) for p, x in flat.items()}


def from_file_layout(
    template: Variables, tensors: Mapping[str, Any], layout: Layout, what: str
) -> Variables:
    """Build the tree of a network from tensors in a file's layout; raises as `check_tensors`."""
    flat = flatten(template)
    shapes = {n: tuple(flat[p].shape[axis] for axis in axes) for p, (n, axes) in layout.items()}
    check_tensors(shapes, tensors, what)
    arrays = {p: np.transpose(tensors[n], np.argsort(axes)) for p, (n, axes) in layout.items()}
    return restore(template, arrays)


def to_file_layout(variables: Variables, layout: Layout) -> dict[str, np.ndarray]:
    """Return the tensors of a network in a file's layout; the inverse of `from_file_layout`."""
    flat = flatten(variables)
    return {n: np.array(np.transpose(flat[p], axes), order="C") for p, (n, axes) in layout.items()}


def check_tensors(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], what: str
) -> None:
    """Check that names and shapes of tensors are exactly the expected ones.

    Raises:
      UserError: they are not; `what`, then at most twelve names that are missing, unexpected or
        misshapen.
    """
    missing = [name for name in shapes if name not in tensors]
    extra = [name for name in tensors if name not in shapes]
    misshapen = [
        f"{name} {tuple(np.shape(tensors[name]))} instead of {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(np.shape(tensors[name])) != shape
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("of another shape", misshapen))
    faults = [f"{kind}: {_join(names)}" for kind, names in kinds if names]
    if faults:
        raise UserError(f"{what}; {'; '.join(faults)}")


def _join(names: list[str]) -> str:
    # a network of another depth differs in hundreds of tensors
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
