"""BERT, T5 and GPT-Neo in the reference library's folders: config.json and model.safetensors."""

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models.io import convert, huggingface_names
from kdjax.models.io.huggingface_config import to_config, to_options
from kdjax.models.text.bert import bert
from kdjax.models.text.gpt_neo import gpt_neo
from kdjax.models.text.t5 import t5
from kdjax.types import Array, Model, UserError, Variables

__all__ = ["huggingface_options", "load_huggingface", "save_huggingface"]

_FACTORIES = {"bert": bert, "t5": t5, "gpt_neo": gpt_neo}
_BERT_HEADS = ("classifier.", "cls.")  # of a task; of pre-training, for words and sentences


def load_huggingface(
    folder: str | os.PathLike[str], *, num_classes: int | None = None, key: Array | None = None
) -> tuple[Model, Variables]:
    """Read a BERT with a head for classes or numbers, a T5 or a GPT-Neo.

    T5 and GPT-Neo come as models of tokens: `with_choices` makes classifiers of them. Numbers
    become float32. Buffers (position ids, causal masks) are ignored.

    Args:
      folder: holds config.json and model.safetensors.
      num_classes: gives a BERT a new head of that width, whatever the file has: where tuning
        starts from a network without a head for the task.
      key: draws the new head.

    Raises:
      UserError: a file is missing or damaged, an unknown model_type, or tensors that are missing,
        unexpected or misshapen: lists them by the file's names and in its layout.
    """
    name, options, tensors = _read(folder)
    where = str(Path(folder) / "model.safetensors")
    if num_classes is not None:
        if name != "bert" or key is None:
            raise UserError(f"{folder}: num_classes gives a BERT a new head, and needs a key")
        tensors = _with_head(tensors, (num_classes, options["width"]), key)
        options = {**options, "num_classes": num_classes}
    model = _FACTORIES[name](**options)
    expected = convert.flatten(_template(name, model))
    names = _names(name, expected)
    shapes = {names[path]: _theirs(path, leaf.shape) for path, leaf in expected.items()}
    convert.check_tensors(shapes, tensors, f"{where}: the tensors are not those of this {name}")
    ours = {path: _layout(path, tensors[names[path]]) for path in expected}
    return model, convert.restore(_template(name, model), ours)


def save_huggingface(
    folder: str | os.PathLike[str], config_options: Mapping[str, Any], variables: Variables
) -> None:
    """Write config.json and model.safetensors, which `load_huggingface` reads back exactly.

    Args:
      folder: made if missing; files in it are replaced.
      config_options: a config.json as read (with "model_type"), or {"name": "bert", ...} with the
        options of `models.build`; what they leave out has its default.
      variables: of that network; of a T5 or GPT-Neo with or without `with_choices`.

    Raises:
      UserError: no such family, the variables are not those of that network, or the folder cannot
        be written.
    """
    given = dict(config_options)
    if "model_type" not in given:
        given = to_config(given.get("name", ""), _completed(given))
    name, options = to_options(given, "config_options")
    if name == "t5":
        tied = "lm_head" not in variables.params
        options["tied"] = given["tie_word_embeddings"] = tied
        if "scale_decoder_outputs" in given:
            given["scale_decoder_outputs"] = tied
    expected = convert.flatten(_template(name, _FACTORIES[name](**options)))
    found = convert.flatten(variables)
    shapes = {path: tuple(leaf.shape) for path, leaf in expected.items()}
    convert.check_tensors(shapes, found, f"the variables are not those of this {name}")
    names = _names(name, expected)
    tensors = {names[path]: _layout(path, np.asarray(found[path])) for path in expected}
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(json.dumps(given, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error}") from error
    convert.write_safetensors(tensors, target / "model.safetensors", {"format": "pt"})


def huggingface_options(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Say with which name and options `models.build` makes the network of a folder.

    "num_classes" is among them for a BERT; for T5 and GPT-Neo it is the task's number of choices.

    Raises:
      UserError: as `load_huggingface`, but for the tensors' shapes.
    """
    name, options, _ = _read(folder)
    return {"name": name, **options}


def _read(folder: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no table of settings")
    name, options = to_options(config, str(path))
    tensors = convert.from_safetensors(Path(folder) / "model.safetensors")
    tensors = huggingface_names.normalise(name, tensors)
    if name == "t5":
        # the file knows better than some writers' configs whether the head is the embedding
        only = config.get("tie_word_embeddings") is False
        options["tied"] = "lm_head.weight" not in tensors and not only
    return name, options, tensors


def _with_head(
    tensors: Mapping[str, np.ndarray], shape: tuple[int, int], key: Array
) -> dict[str, np.ndarray]:
    """A BERT's tensors with a new head [classes, width]."""
    rest = {name: x for name, x in tensors.items() if not name.startswith(_BERT_HEADS)}
    weight = np.asarray(0.02 * jax.random.normal(key, shape))
    bias = np.zeros(shape[0], np.float32)
    return {**rest, "classifier.weight": weight, "classifier.bias": bias}


def _template(name: str, model: Model) -> Variables:
    """The shapes of a network's variables."""
    keys = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
    batch = {key: jax.ShapeDtypeStruct((1, 1), jnp.int32) for key in keys}
    return jax.eval_shape(model.init, jax.random.key(0), batch)


def _names(name: str, paths: Mapping[str, Any]) -> dict[str, str]:
    gated = any("/ffn_gate/" in path for path in paths)
    return {path: huggingface_names.to_name(name, path, gated) for path in paths}


def _theirs(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[::-1]) if path.endswith("/kernel") else tuple(shape)


def _layout(path: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float32)
    return array.T if path.endswith("/kernel") else array


def _completed(said: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network with every default filled in, also those that follow from others."""
    said = dict(said)
    name = said.pop("name", None)
    if name not in _FACTORIES:
        raise UserError(f'no config.json is known for "{name}"; there are {", ".join(_FACTORIES)}')
    signature = inspect.signature(_FACTORIES[name]).parameters
    if name != "bert":
        said.pop("num_classes", None)  # of the task, not of a model of tokens
    options = {k: p.default for k, p in signature.items() if p.default is not p.empty} | said
    follow = {
        "ffn_width": 4 * options["width"],
        "head_width": options["width"] // options["num_heads"],
        "decoder_layers": options["num_layers"],
        "attention_dropout": options["dropout"],
        "head_dropout": options["dropout"],
        "embedding_dropout": options["dropout"],
    }
    for key, value in follow.items():
        if key in options and options[key] is None:
            options[key] = value
    return options
