"""Exported networks: a folder with model.safetensors and config.json."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import models
from kdjax.errors import UserError, prefix_errors
from kdjax.models import user_code
from kdjax.models.io import class_order, convert, huggingface
from kdjax.types import Model, Spec, Variables

FORMAT = "kdjax-model-1"
SIDE_FILE = "kdjax.json"  # what kdjax.load needs besides Hugging Face's config.json
LANGUAGE_MODEL = "language_model"  # the task of exports whose network predicts tokens
DETECTION = "detection"  # the task of exports of detectors
SLACK = 0.02  # in standard deviations: largest difference between splits of the same data


def save(folder: Path, variables: Variables, metadata: Mapping[str, Any]) -> None:
    """Write a network.

    Args:
      folder: created if missing; from `new_folder`, which refuses an old export.
      variables: of one network, not stacked.
      metadata: content of config.json besides the format: "model" (name and options),
        "num_classes", "shape", "mean", "std", "scale", and its origin. If the model's name is the
        path of a Python file, the file is copied.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        convert.to_safetensors(variables, folder / "model.safetensors", {"format": FORMAT})
        file = user_code.file_of(str(metadata["model"]["name"]))
        if file is not None:
            shutil.copy(file, folder)
        text = json.dumps({"format": FORMAT, **metadata}, indent=2, default=str)
        (folder / "config.json").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def check_new(folder: PurePath, exists: Callable[[Any], bool] = Path.exists) -> None:
    """Refuse a folder that already holds an export; `exists` tests a path."""
    for name in ("model.safetensors", "config.json"):
        if exists(folder / name):
            raise UserError(f"{folder} already holds {name}; name a new folder")


def save_side_file(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write the content of a kdjax config.json into a folder of Hugging Face."""
    text = json.dumps({"format": FORMAT, **metadata}, indent=2, default=str)
    (folder / SIDE_FILE).write_text(text + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files move into `folder` unless an error is raised.

    Raises:
      UserError: the folder already holds an export, or cannot be written.
    """
    check_new(folder)
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=nearest) as partial:
            yield Path(partial)
            folder.mkdir(parents=True, exist_ok=True)
            for file in Path(partial).iterdir():
                os.replace(file, folder / file.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def check_no_workdir(folder: PurePath, exists: Callable[[Any], bool] = Path.is_dir) -> None:
    """Refuse a folder that holds checkpoints of a run; `exists` tests a path."""
    if exists(folder / "checkpoints"):
        raise UserError(
            f"{folder} is the workdir of a run: first `python -m kdjax export "
            f"--workdir={folder} --role=teacher --out=DIR`, then give DIR"
        )


def describe(path: str | Path, name: str = "config.json") -> dict[str, Any]:
    """Read the config.json of an export, or another file `name` with such content.

    Raises:
      UserError: the file is missing, damaged, of another format or without a required key; or the
        folder is the workdir of a run.
    """
    folder = Path(path)
    check_no_workdir(folder)
    try:
        metadata = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no config.json; give a folder written by `export`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}/{name} cannot be read: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise UserError(f"{folder}/{name} is not of format {FORMAT}: export it with kdjax")
    missing = [key for key in ("model", "num_classes", "shape") if key not in metadata]
    if missing:
        raise UserError(f"{folder}/{name} lacks {', '.join(missing)}: export it again")
    return metadata


def load(
    path: str | Path, model: Mapping[str, Any], template: Variables, spec: Spec | None = None
) -> Variables:
    """Read the variables of an export, which must hold the network that a config describes.

    Args:
      path: a folder written by `save`.
      model: the config's table, with "name".
      template: shapes of the network's variables.
      spec: of the new data; compared with that of the training data. The outputs are put in the
        order of its classes.

    Returns:
      Variables with the structure of the template.

    Raises:
      UserError: another architecture, tensors that do not fit (all differences are named), other
        classes, or images of another size or normalisation.
    """
    metadata = describe(path)
    if spec is not None:
        _check_spec(path, metadata, spec)
    if metadata["model"].get("name") != model.get("name"):
        raise UserError(
            f"{path} holds a {metadata['model'].get('name')}, but model.name is {model.get('name')}"
        )
    config_items = json.loads(json.dumps(dict(model))).items()
    options = ", ".join(
        f"model.{k}={v}" for k, v in metadata["model"].items() if (k, v) not in config_items
    )
    hint = f" (its network has {options})" if options else ""
    with prefix_errors(f"{path} does not fit {model.get('name')}{hint}: "):
        tensors = convert.from_safetensors(Path(path) / "model.safetensors")
        variables = convert.restore(template, tensors)
    if spec is None:
        return variables
    names = metadata.get("class_names")
    names = [str(name) for name in names] if isinstance(names, list) else []
    return class_order.in_data_order(variables, names, spec, str(path))


def _check_spec(path: str | Path, metadata: Mapping[str, Any], spec: Spec) -> None:
    """Refuse data of another kind than a network was trained on."""
    if metadata["num_classes"] != spec.num_classes:
        raise UserError(
            f"{path} has {metadata['num_classes']} classes, but the data has {spec.num_classes}"
        )
    if spec.vocabulary:
        if metadata.get("vocabulary") != spec.vocabulary:
            raise UserError(
                f"{path} was trained with another vocabulary than the data's; set "
                f"data.{'tokenizer' if spec.task == LANGUAGE_MODEL else 'vocabulary'}={path} "
                "(export keeps the vocabulary with the network)"
            )
        return
    if list(metadata["shape"]) != list(spec.shape):
        raise UserError(
            f"{path} was trained on images of shape {tuple(metadata['shape'])}, but the data has "
            f"{spec.shape}"
        )
    check_normalised(path, metadata, spec)


def check_normalised(path: str | Path, metadata: Mapping[str, Any], spec: Spec) -> None:
    """Refuse data with another normalisation of images than in the training of a network.

    Raises:
      UserError: mean or std differ; names the values to set.
    """
    if metadata.get("mean") is None or metadata.get("std") is None:
        return  # an import without --mean and --std
    mean, std = (
        values * len(spec.mean) if len(values) == 1 else values
        for values in (list(metadata["mean"]), list(metadata["std"]))
    )
    if len(mean) != len(spec.mean):
        raise UserError(
            f"{path} takes images of {len(mean)} channels, but the data has {len(spec.mean)}"
        )
    ratio = _unit(mean, std, metadata.get("scale") or 255)
    ratio /= _unit(spec.mean, spec.std, spec.scale)
    expected = {"mean": [x * ratio for x in mean], "std": [x * ratio for x in std]}
    for name in expected:
        pairs = zip(expected[name], getattr(spec, name), spec.std, strict=True)
        if max(abs(old - new) / unit for old, new, unit in pairs) > SLACK:
            raise UserError(
                f"{path} was trained on images normalised by {name} {_format(expected[name])}, but "
                f"the data has {_format(getattr(spec, name))}: set data.mean="
                f"{_format(expected['mean'])} and data.std={_format(expected['std'])}"
            )


def _unit(mean: Sequence[float], std: Sequence[float], scale: float) -> float:
    """Return the size of a unit of `mean` and `std` in images whose pixels are 0 to 1.

    Images of floats have scale 1, whether their pixels are 0 to 1 or 0 to 255; numbers above 1 tell
    the latter. Pixels of scikit-learn's digits are 0 to 16, their scale. Others are bytes.
    """
    if scale == 16 or (scale == 1 and max(*map(abs, mean), *std) <= 1):
        return 1.0
    return scale / 255


def _format(values: Any) -> str:
    return "(" + ",".join(f"{value:.4g}" for value in values) + ",)"


def restore(path: str | Path, spec: Spec | None = None) -> tuple[Model, Variables, dict[str, Any]]:
    """Build the network of an export and read its variables.

    Args:
      path: a folder written by `save`, or one of Hugging Face with `save_side_file`.
      spec: as for `load`; not compared with a folder of Hugging Face.

    Returns:
      The model, its variables, and config.json as a dict (with "mean", "std" and "scale", by
      which images are normalised: `(image / scale - mean) / std`).

    Raises:
      UserError: as `load`.
    """
    is_huggingface = (Path(path) / SIDE_FILE).is_file()
    metadata = describe(path, SIDE_FILE) if is_huggingface else describe(path)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in metadata["model"].items()}
    name = str(options.pop("name"))
    file = user_code.file_of(name)
    if file is not None and (Path(path) / file.name).is_file():
        name = f"{Path(path) / file.name}:{name.rpartition(':')[2]}"
    is_language_model = metadata.get("task") == LANGUAGE_MODEL
    build = models.build_language_model if is_language_model else models.build
    model = build(name, num_classes=metadata["num_classes"], **options)
    inputs = metadata.get("inputs") or {"image": (metadata["shape"], "float32")}
    batch = {name: jnp.zeros((1, *shape), dtype) for name, (shape, dtype) in inputs.items()}
    if is_huggingface:  # its names and layouts are not those of `save`
        return model, huggingface.load_huggingface(path)[1], metadata
    template = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model, load(path, metadata["model"], template, spec), metadata
