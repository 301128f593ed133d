"""Import of PyTorch weights to a folder for `roles.<role>.checkpoint`, and export to PyTorch."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.errors import UserError, prefix_errors
from kdjax.models.io import convert, torch_names
from kdjax.models.io import export as model_export
from kdjax.models.io.weight_files import read_weights, weights_file


class ImageFormat(NamedTuple):
    """Images that a network was trained on, normalised as `(image / scale - mean) / std`."""

    shape: Sequence[int] = (32, 32, 3)  # height, width, channels
    mean: Sequence[float] | None = None  # by channel; None is unknown, null in config.json
    std: Sequence[float] | None = None  # by channel; set with `mean`
    scale: float = 255.0  # 255 for uint8 images
    class_names: Sequence[str] = ()  # in the order of the outputs; () is unknown


def import_weights(
    model_name: str,
    weights_path: str | Path,
    out: Path,
    images: ImageFormat,
    *,
    num_classes: int | None = None,
    key: str | None = None,
) -> str:
    """Write a PyTorch network as an export: model.safetensors and config.json.

    Args:
      model_name: as for `models.build`; options (such as a ResNet's shortcut) follow from the file.
      weights_path: a file or folder for `read_weights`, with PyTorch's tensor names.
      out: a new folder.
      images: the network's training images.
      num_classes: compared with the file's; None is not compared.
      key: of the state dict, or prefix of the names, if the file holds several networks.

    Returns:
      A line with the number of classes and the config keys of the network.

    Raises:
      UserError: a file that cannot be read; tensors that are missing, unexpected, misshapen or
        not finite; inconsistent numbers; a folder that holds an export.
    """
    tensors = read_weights(weights_path, key)
    where = str(weights_path)
    with prefix_errors(f"{where}: "):
        classes = int(torch_names.last_layer(tensors, f'model "{model_name}"').shape[0])
        options = models.torch_options(model_name, tensors)
        model = models.build(model_name, num_classes=classes, **options)
        variables = models.load_torch(model_name, tensors)
    if num_classes not in (None, classes):
        raise UserError(f"{where} has {classes} classes, but num_classes is {num_classes}")
    _check_finite(where, tensors)
    _check_images(where, torch_names.first_kernel(tensors), images)
    if len(images.class_names) not in (0, classes):
        raise UserError(f"{where} has {classes} classes, but {len(images.class_names)} names")
    image = jax.ShapeDtypeStruct((1, *images.shape), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), {"image": image})
    metadata: dict[str, Any] = {
        "model": {"name": model_name, **options},
        "num_classes": classes,
        "class_names": list(images.class_names),
        "shape": list(images.shape),
        "mean": None if images.mean is None else list(images.mean),
        "std": None if images.std is None else list(images.std),
        "scale": images.scale,
        "source": Path(weights_path).name,
        "source_sha256": hashlib.sha256(weights_file(weights_path).read_bytes()).hexdigest(),
    }
    with model_export.new_folder(out) as folder:
        model_export.save(folder, variables, metadata)
    if images.mean is None:
        warnings.warn(
            f"{out} has no mean and std of its training images: a run will normalise images by its "
            "own data; import with --mean and --std, as in the network's training",
            stacklevel=2,
        )
    options = metadata["model"].items()
    keys = ", ".join(f"roles.<role>.model.{key}={value}" for key, value in options)
    return f"{classes} classes, for a config: roles.<role>.checkpoint={out}, {keys}"


def write_torch(folder: Path) -> Path:
    """Write torch.safetensors, with PyTorch's names and layouts, into the folder of an export.

    Raises:
      UserError: the folder is not an export, or the network has no known PyTorch names.
    """
    _, variables, metadata = model_export.restore(folder)
    path = folder / "torch.safetensors"
    tensors = models.to_torch(metadata["model"]["name"], variables)
    convert.write_safetensors(tensors, path, {"format": "pt"})
    return path


def _check_finite(where: str, tensors: dict[str, np.ndarray]) -> None:
    bad = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if bad:
        raise UserError(f"{where}: NaN or infinite numbers in {', '.join(bad)}")


def _check_images(where: str, kernel: np.ndarray | None, images: ImageFormat) -> None:
    shape, mean, std, scale, _ = images
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
