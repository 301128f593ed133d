"""Where the weights of a role come from that does not start at random: files of either format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import models
from kdjax.distill.methods.co_train import role_key
from kdjax.models.io import export as model_export
from kdjax.types import Batch, Model, Spec, UserError, Variables


def read(said: Mapping[str, Any], template: Variables, spec: Spec) -> tuple[Variables, bool]:
    """Read the `checkpoint` of a role: a folder of kdjax's `export`, or of Hugging Face.

    With `keep_layers` the network is made of those layers of the file's.

    Args:
      said: the role's table.
      template: shapes of its variables.
      spec: of the data.

    Returns:
      The variables, and whether they await `init_head`: a BERT that trains and whose file has no
      head for this task.

    Raises:
      UserError: another architecture, tensors that do not fit, or other data.
    """
    path = said["checkpoint"]
    if is_huggingface(path):
        return _huggingface(path, said, template, spec)
    if said["keep_layers"]:
        return _fit(path, said, model_export.restore(path, spec)[1], template), False
    return model_export.load(path, said["model"], template, spec), False


def init_head(variables: Variables, seed: int) -> Variables:
    """Draw the head of a BERT anew, as the reference library does: N(0, .02^2), no bias."""
    head = variables.params["fc"]
    drawn = 0.02 * jax.random.normal(jax.random.key(seed), head["kernel"].shape[::-1])
    fresh = {"kernel": drawn.T, "bias": jnp.zeros_like(head["bias"])}
    return variables._replace(params={**variables.params, "fc": fresh})


def backbone(path: str, template: Variables, spec: Spec) -> Variables:
    """Read a classifier that a detector's backbone starts as: a folder of `export` or `import`.

    Args:
      path: of the folder.
      template: shapes of the detector's variables.
      spec: of the data; pictures must be normalised as the classifier has seen them.

    Raises:
      UserError: another network than the backbone, or another normalisation.
    """
    _, found, about = model_export.restore(path)
    model_export.check_normalised(path, about, spec)
    models.with_backbone(template, found)
    return found


def init_detector_heads(
    model: Model, role: str, weights: Variables, seeds: Sequence[int], batch: Batch
) -> list[Variables]:
    """Detectors that start with one backbone, their heads drawn by seed as those of fresh ones."""
    init = jax.jit(model.init)
    keys = [role_key(jax.random.key(seed), role) for seed in seeds]
    return [models.with_backbone(init(key, batch), weights) for key in keys]


def is_huggingface(path: str | Path) -> bool:
    """Whether a folder's config.json names a model_type."""
    try:
        found = json.loads((Path(path) / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, Mapping) and "model_type" in found


def select_layers(variables: Variables, layers: Sequence[int]) -> Variables:
    """The network of the chosen layers; all of them if none are named."""
    return models.select_layers(variables, list(layers)) if layers else variables


def _huggingface(
    path: str, said: Mapping[str, Any], template: Variables, spec: Spec
) -> tuple[Variables, bool]:
    try:
        return _fit(path, said, models.load_huggingface(path)[1], template), False
    except UserError:
        if said["model"]["name"] != "bert" or not said["terms"]:
            raise
    key = jax.random.key(0)  # of a head that `init_head` replaces, member by member
    variables = models.load_huggingface(path, num_classes=spec.num_classes, key=key)[1]
    return _fit(path, said, variables, template), True


def _fit(
    path: str, said: Mapping[str, Any], variables: Variables, template: Variables
) -> Variables:
    try:
        return models.restore(
            template, models.flatten(select_layers(variables, said["keep_layers"]))
        )
    except UserError as error:
        raise UserError(f"{path} does not fit {said['model'].get('name')}: {error}") from error
