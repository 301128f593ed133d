"""Weights from elsewhere, as a folder that `roles.<role>.checkpoint` takes; and the way back."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.models.io import convert, torch_names
from kdjax.models.io import export as model_export
from kdjax.models.io.weight_files import read_weights
from kdjax.types import UserError

__all__ = ["import_weights", "write_torch"]


def import_weights(
    model_name: str,
    weights_path: str | Path,
    out: Path,
    *,
    shape: Sequence[int] = (32, 32, 3),
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 255.0,
) -> str:
    """Write a PyTorch network as an export: model.safetensors and config.json.

    Args:
      model_name: as for `models.build`; options (a ResNet's shortcut, say) follow from the file.
      weights_path: a .npz, .safetensors, .pth, .pt or .th file with PyTorch's tensor names.
      out: a new folder.
      shape: height, width and channels of the images that the network was trained on.
      num_classes: checked against the file if given.
      mean: by channel, what its images were normalised with, `(image / scale - mean) / std`; if
        left out config.json says null.
      std: by channel; given with `mean`.
      scale: 255 for uint8 images.

    Returns:
      A line that says what was written and how a config names it.

    Raises:
      UserError: a file that cannot be read; tensors that are missing, unexpected, misshapen or
        not finite; numbers that do not fit each other; a folder that holds an export.
    """
    tensors = read_weights(weights_path)
    where = str(weights_path)
    try:
        classes = int(torch_names.last_layer(tensors, f'model "{model_name}"').shape[0])
        options = models.torch_options(model_name, tensors)
        model = models.build(model_name, num_classes=classes, **options)
        variables = models.load_torch(model_name, tensors)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if num_classes not in (None, classes):
        raise UserError(f"{where} has {classes} classes, but num_classes is {num_classes}")
    _check_finite(where, tensors)
    _check_images(where, shape, convert.first_kernel(tensors), mean, std, scale)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), {"image": image})
    about: dict[str, Any] = {
        "model": {"name": model_name, **options},
        "num_classes": classes,
        "shape": list(shape),
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
        "scale": scale,
        "source": Path(weights_path).name,
        "source_sha256": hashlib.sha256(Path(weights_path).read_bytes()).hexdigest(),
    }
    model_export.save(out, variables, about)
    said = ", ".join(f"model.{key}={value}" for key, value in about["model"].items())
    return f"{classes} classes, for a config: roles.<role>.checkpoint={out}, {said}"


def write_torch(folder: Path) -> Path:
    """Write torch.safetensors, with PyTorch's names and layouts, into the folder of an export.

    Raises:
      UserError: the folder is no export, or PyTorch's names of its network are not known.
    """
    _, variables, about = model_export.restore(folder)
    path = folder / "torch.safetensors"
    tensors = models.to_torch(about["model"]["name"], variables)
    convert.write_safetensors(tensors, path, {"format": "pt"})
    return path


def _check_finite(where: str, tensors: dict[str, np.ndarray]) -> None:
    bad = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if bad:
        raise UserError(f"{where}: NaN or infinite numbers in {', '.join(bad)}")


def _check_images(
    where: str,
    shape: Sequence[int],
    kernel: np.ndarray | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float,
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"shape is {tuple(shape)}: give height, width and channels, as 32,32,3")
    channels = shape[2]
    if kernel is not None and kernel.shape[1] != channels:
        raise UserError(
            f"{where} takes images of {kernel.shape[1]} channels, but shape says {channels}"
        )
    if (mean is None) != (std is None):
        raise UserError("give both mean and std, or neither")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise UserError(f"{name} has {len(values)} numbers for {channels} channels")
    if not scale > 0 or (std is not None and not min(std) > 0):
        raise UserError("scale and std must be greater than 0")
