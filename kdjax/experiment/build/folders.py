"""Networks that a Hugging Face folder describes: `model.name = "huggingface"`.

Before anything is built, such a role becomes one with the folder's network, its options and, unless
it starts from scratch, its weights.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.data import has_tokenizer
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.config.schema import Config, Model, Role
from kdjax.models.io import huggingface_folder
from kdjax.report import files, staging

NAME = "huggingface"
# options that follow from the data, `precision` and the devices
_DERIVED = ("num_classes", "dtype", "axis_name")


def resolve_folders(config: Config) -> Config:
    """Replace the models that folders describe by named ones with all options.

    Raises:
      UserError: no folder, or one that holds no network of a known family.
    """
    roles = {}
    for name, role in config.roles.items():
        if role.model.name == NAME:
            with prefix_errors(f"roles.{name}.model: "):
                roles[name] = _resolve(role)
    return config.model_copy(update={"roles": {**config.roles, **roles}}) if roles else config


def tokenizer_folder(configs: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the first folder of a role with a tokenizer, of configs before defaults."""
    for config in configs:
        for role in (config.get("roles") or {}).values():
            model = (role or {}).get("model") or {}
            folder = model.get("path") or (role or {}).get("checkpoint")
            if model.get("name") == NAME and folder:
                local = files.LocalPath(staging.local_copy(str(folder))).expanduser()
                if has_tokenizer(local):
                    return str(local)
    return None


def _resolve(role: Role) -> Role:
    options = role.model.options
    from_scratch = options.pop("from_scratch", False)
    folder = options.pop("path", None) or role.checkpoint
    if not isinstance(from_scratch, bool):
        raise UserError(f"from_scratch is {from_scratch!r}; it must be True or False")
    if not isinstance(folder, str):
        raise UserError("name is huggingface, which needs a folder: set checkpoint, or model.path")
    folder = str(files.as_path(folder))
    name, described = huggingface_folder.read_options(staging.local_copy(folder))
    described = {key: value for key, value in described.items() if key not in _DERIVED}
    if role.keep_layers:
        described = huggingface_folder.select_layer_options(described, role.keep_layers)
    changes: dict[str, Any] = {"model": Model(name=name, **_laid_over(folder, options, described))}
    if from_scratch:
        changes |= {"checkpoint": None, "keep_layers": ()}
    elif role.from_variant is None and role.checkpoint is None:
        changes["checkpoint"] = folder
    return role.model_copy(update=changes)


def _laid_over(
    folder: str, options: Mapping[str, Any], described: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the folder's options, with the rates of dropout of a config.

    An experiment may state the sizes of the network that it has without a folder.
    """
    replaced = {
        key: value
        for key, value in options.items()
        if not key.endswith("dropout") and value != described.get(key, value)
    }
    if replaced:
        listed = ", ".join(f"{key}={described[key]!r} (not {x!r})" for key, x in replaced.items())
        warnings.warn(f"the network is that of {folder}: {listed}", stacklevel=2)
    return {**described, **{key: x for key, x in options.items() if key not in replaced}}
