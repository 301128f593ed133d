"""Where the weights of a role come from that does not start at random: files of either format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kdjax import exports, models
from kdjax.types import Spec, UserError, Variables


def read(said: Mapping[str, Any], template: Variables, spec: Spec, *, seed: int) -> Variables:
    """Read the `checkpoint` of a role: a folder of kdjax's `export`, or of Hugging Face.

    A BERT whose file has no head for this task gets a new one, drawn by `seed`, if the role
    trains. With `keep_layers` the network is made of those layers of the file's.

    Args:
      said: the role's table.
      template: shapes of its variables.
      spec: of the data.
      seed: of the run.

    Raises:
      UserError: another architecture, tensors that do not fit, or other data.
    """
    path = said["checkpoint"]
    if is_huggingface(path):
        return _huggingface(path, said, template, spec, seed)
    if said["keep_layers"]:
        return _fit(path, said, exports.restore(path, spec)[1], template)
    return exports.load(path, said["model"], template, spec)


def is_huggingface(path: str | Path) -> bool:
    """Whether a folder's config.json names a model_type."""
    try:
        found = json.loads((Path(path) / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, Mapping) and "model_type" in found


def kept(variables: Variables, layers: Sequence[int]) -> Variables:
    """The network of the chosen layers; all of them if none are named."""
    return models.keep_layers(variables, list(layers)) if layers else variables


def _huggingface(
    path: str, said: Mapping[str, Any], template: Variables, spec: Spec, seed: int
) -> Variables:
    try:
        return _fit(path, said, models.load_huggingface(path)[1], template)
    except UserError:
        if said["model"]["name"] != "bert" or not said["terms"]:
            raise
    key = jax.random.key(seed)
    variables = models.load_huggingface(path, num_classes=spec.num_classes, key=key)[1]
    return _fit(path, said, variables, template)


def _fit(
    path: str, said: Mapping[str, Any], variables: Variables, template: Variables
) -> Variables:
    try:
        return models.restore(template, models.flatten(kept(variables, said["keep_layers"])))
    except UserError as error:
        raise UserError(f"{path} does not fit {said['model'].get('name')}: {error}") from error
