"""Networks on disk, for others and for the next run: model.safetensors beside config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import models
from kdjax.models.io import convert
from kdjax.types import Model, Spec, UserError, Variables

FORMAT = "kdjax-model-1"
SLACK = 0.02  # in standard deviations: what another split of the same data may differ by


def save(folder: Path, variables: Variables, about: Mapping[str, Any]) -> None:
    """Write a network.

    Args:
      folder: created; must not already hold an export.
      variables: of one network, not stacked.
      about: what config.json says beside the format: "model" (name and options), "num_classes",
        "shape", "mean", "std", "scale", and where it came from.

    Raises:
      UserError: the folder holds an export already, or cannot be written.
    """
    refuse_old(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        convert.to_safetensors(variables, folder / "model.safetensors", {"format": FORMAT})
        text = json.dumps({"format": FORMAT, **about}, indent=2, default=str)
        (folder / "config.json").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def refuse_old(folder: Path) -> None:
    """Refuse a folder that holds an export already."""
    for name in ("model.safetensors", "config.json"):
        if (folder / name).exists():
            raise UserError(f"{folder} already holds {name}; name a new folder")


def describe(path: str | Path) -> dict[str, Any]:
    """Read the config.json of an export."""
    folder = Path(path)
    if (folder / "checkpoints").is_dir():
        raise UserError(
            f"{folder} is the workdir of a run: first `python -m kdjax export "
            f"--workdir={folder} --role=teacher --out=DIR`, then give DIR"
        )
    try:
        about = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no config.json; give a folder written by `export`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}/config.json cannot be read: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{folder}/config.json is not of format {FORMAT}: export it with kdjax")
    lacking = [key for key in ("model", "num_classes", "shape") if key not in about]
    if lacking:
        raise UserError(f"{folder}/config.json lacks {', '.join(lacking)}: export it anew")
    return about


def load(
    path: str | Path, model: Mapping[str, Any], template: Variables, spec: Spec | None = None
) -> Variables:
    """Read a network that must be the one a config describes.

    Args:
      path: a folder written by `save`.
      model: the config's table, with "name".
      template: shapes of its variables.
      spec: of the data that it will see; compared with that of the data it has seen.

    Raises:
      UserError: another architecture, tensors that do not fit (all differences are named), or
        images of another size, number of classes or normalisation.
    """
    about = describe(path)
    if spec is not None:
        _check_spec(path, about, spec)
    if about["model"].get("name") != model.get("name"):
        raise UserError(
            f"{path} holds a {about['model'].get('name')}, but model.name is {model.get('name')}"
        )
    try:
        return convert.restore(template, convert.from_safetensors(Path(path) / "model.safetensors"))
    except UserError as error:
        raise UserError(f"{path} does not fit {model.get('name')}: {error}") from error


def _check_spec(path: str | Path, about: Mapping[str, Any], spec: Spec) -> None:
    """Refuse data that a network was not trained for."""
    if about["num_classes"] != spec.num_classes:
        raise UserError(
            f"{path} knows {about['num_classes']} classes, but the data has {spec.num_classes}"
        )
    if spec.vocabulary:
        if about.get("vocabulary") != spec.vocabulary:
            raise UserError(
                f"{path} has read another vocabulary than the data's; set data.vocabulary={path} "
                "(export keeps the vocabulary with the network)"
            )
        return
    if list(about["shape"]) != list(spec.shape):
        raise UserError(
            f"{path} has seen images of {tuple(about['shape'])}, but the data has {spec.shape}"
        )
    check_normalised(path, about, spec)


def check_normalised(path: str | Path, about: Mapping[str, Any], spec: Spec) -> None:
    """Refuse images that are normalised otherwise than a network has seen them.

    Raises:
      UserError: with the values to set.
    """
    if about.get("mean") is None or about.get("std") is None:
        return  # an import that did not say
    for name in ("mean", "std"):
        pairs = zip(about[name], getattr(spec, name), spec.std, strict=True)
        if max(abs(old - new) / unit for old, new, unit in pairs) > SLACK:
            raise UserError(
                f"{path} has seen images normalised by {name} {_shown(about[name])}, but the data "
                f"has {_shown(getattr(spec, name))}: set data.mean={_shown(about['mean'])} and "
                f"data.std={_shown(about['std'])}"
            )


def _shown(values: Any) -> str:
    return "(" + ",".join(f"{value:.4g}" for value in values) + ",)"


def restore(path: str | Path, spec: Spec | None = None) -> tuple[Model, Variables, dict[str, Any]]:
    """Build the network of an export and read its variables.

    Args:
      path: a folder written by `save`.
      spec: as for `load`.

    Returns:
      The model, its variables, and config.json as a dict (with "mean", "std" and "scale", by
      which images are normalised: `(image / scale - mean) / std`).

    Raises:
      UserError: as `load`.
    """
    about = describe(path)
    options = {k: v for k, v in about["model"].items() if k != "name"}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    model = models.build(about["model"]["name"], num_classes=about["num_classes"], **options)
    inputs = about.get("inputs") or {"image": (about["shape"], "float32")}
    batch = {name: jnp.zeros((1, *shape), dtype) for name, (shape, dtype) in inputs.items()}
    template = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model, load(path, about["model"], template, spec), about
