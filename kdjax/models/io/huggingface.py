"""BERT, T5 and GPT-Neo in the reference library's folders: config.json and model.safetensors."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError
from kdjax.models.io import convert, huggingface_names, weight_files
from kdjax.models.io.huggingface_config import class_names, to_config, to_options
from kdjax.models.text.bert import BertOptions, bert
from kdjax.models.text.gpt_neo import GptNeoOptions, gpt_neo
from kdjax.models.text.t5 import T5Options, t5
from kdjax.types import Array, Model, Variables

_FAMILIES: dict[str, tuple[type, Callable[[Any], Model]]] = {
    "bert": (BertOptions, bert),
    "t5": (T5Options, t5),
    "gpt_neo": (GptNeoOptions, gpt_neo),
}
_HIDDEN_OPTIONS = (
    "num_heads",
    "activation",
    "epsilon",
    "layers",
    "window",
    "max_distance",
    "scale_outputs",
)
_BERT_HEADS = ("classifier.", "cls.")  # of fine-tuning and of pre-training


def load_huggingface(
    folder: str | os.PathLike[str], *, num_classes: int | None = None, key: Array | None = None
) -> tuple[Model, Variables]:
    """Read a BERT with a head for classes or numbers, a T5 or a GPT-Neo.

    T5 and GPT-Neo become models of tokens; `with_choices` makes classifiers of them. All tensors
    are converted to float32. Buffers (position ids, causal masks) are ignored.

    Args:
      folder: holds config.json and model.safetensors or pytorch_model.bin, whole or in shards.
      num_classes: width of a new head for a BERT, in place of the file's: the start of fine-tuning.
      key: of the new head's initial values.

    Raises:
      UserError: a file is missing or damaged, an unknown model_type, or tensors that are missing,
        unexpected or misshapen; lists them with the file's names and layouts.
    """
    name, options, tensors = _read(folder)
    where = weight_files.weights_file(folder)
    if num_classes is not None:
        if name != "bert" or key is None:
            raise UserError(f"{folder}: num_classes gives a BERT a new head, and needs a key")
        tensors = _with_head(tensors, (num_classes, options["width"]), key)
        options = {**options, "num_classes": num_classes}
    model = _build(name, options)
    template = _template(model)
    what = f"{where}: the tensors are not those of this {name}"
    return model, convert.from_file_layout(template, tensors, _layout(name, template), what)


def save_huggingface(
    folder: str | os.PathLike[str], config_options: Mapping[str, Any], variables: Variables
) -> None:
    """Write config.json and model.safetensors, which `load_huggingface` reads back exactly.

    Args:
      folder: created if missing; existing files are replaced.
      config_options: the content of a config.json (with "model_type"), or {"name": "bert", ...}
        with options of `models.build`, and "class_names" if they are known; missing options have
        their defaults.
      variables: of that network; of a T5 or GPT-Neo with or without `with_choices`.

    Raises:
      UserError: an unknown family, variables of another network, or a folder that cannot be
        written.
    """
    config = dict(config_options)
    if "model_type" not in config:
        config = _to_config(config)
    name, options = to_options(config, "config_options")
    if name == "t5":
        tied = "lm_head" not in variables.params
        options["tied"] = config["tie_word_embeddings"] = tied
    expected = convert.flatten(_template(_build(name, options)))
    arrays = convert.flatten(variables)
    shapes = {path: tuple(leaf.shape) for path, leaf in expected.items()}
    convert.check_tensors(shapes, arrays, f"the variables are not those of this {name}")
    tensors = convert.to_file_layout(variables, _layout(name, variables))
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error}") from error
    convert.write_safetensors(tensors, target / "model.safetensors", {"format": "pt"})


def check_options(
    folder: str | os.PathLike[str], network: Mapping[str, Any], keep_layers: Sequence[int] = ()
) -> None:
    """Refuse a network that has other options than a folder's where no tensor's shape shows it.

    Args:
      folder: that `load_huggingface` can read.
      network: {"name": ...} and options of `models.build`.
      keep_layers: layers of the folder's network that this one is made of; () are all.

    Raises:
      UserError: another family, or another value of an option; names both values.
    """
    path = Path(folder) / "config.json"
    config = read_config(folder)
    name, options = to_options(config, str(path))
    if network["name"] != name:
        raise UserError(f"{folder} holds a {name}, not a {network['name']}")
    if (start := config.get("decoder_start_token_id") or 0) != 0:
        raise UserError(f"{path}: decoder_start_token_id is {start}: choices are decoded after 0")
    options_type, _ = _FAMILIES[name]
    fields = {field.name for field in dataclasses.fields(options_type)}
    model = options_type(**{key: x for key, x in network.items() if key in fields}).complete()
    tied = {"tied": model.tied} if name == "t5" else {}
    source = options_type(**options, **tied).complete()
    for option in _HIDDEN_OPTIONS:
        built, saved = (getattr(each, option, None) for each in (model, source))
        if option == "layers" and keep_layers:
            saved = tuple(source.layers[layer] for layer in keep_layers)
        if built != saved:
            raise UserError(f"{folder} has {option} {saved!r}, the model {built!r}: set it there")


def _build(name: str, options: Mapping[str, Any]) -> Model:
    options_type, factory = _FAMILIES[name]
    return factory(options_type(**options))


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a folder's config.json.

    Raises:
      UserError: it is missing, damaged or no table.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no table of settings")
    return config


def read_class_names(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the names of a folder's classes, in the order of the outputs; () if it has none.

    Raises:
      UserError: as `read_config`; tables of names that contradict each other.
    """
    return class_names(read_config(folder), str(Path(folder) / "config.json"))


def _read(folder: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    config = read_config(folder)
    path = Path(folder) / "config.json"
    name, options = to_options(config, str(path))
    tensors = weight_files.read_weights(folder)
    headed = "lm_head.weight" in tensors
    tensors = huggingface_names.normalise(name, tensors)
    if name == "gpt_neo" and config.get("tie_word_embeddings") is False and not headed:
        raise UserError(f"{path}: tie_word_embeddings is false, but the file has no lm_head.weight")
    if name == "t5":
        # some configs are wrong about a tied head, so that the tensors decide
        untied = config.get("tie_word_embeddings") is False
        options["tied"] = "lm_head.weight" not in tensors and not untied
    return name, options, tensors


def _with_head(
    tensors: Mapping[str, np.ndarray], shape: tuple[int, int], key: Array
) -> dict[str, np.ndarray]:
    """Replace the head of a BERT's tensors by a new one [classes, width]."""
    rest = {name: x for name, x in tensors.items() if not name.startswith(_BERT_HEADS)}
    weight = np.asarray(0.02 * jax.random.normal(key, shape))
    bias = np.zeros(shape[0], np.float32)
    return {**rest, "classifier.weight": weight, "classifier.bias": bias}


def _template(model: Model) -> Variables:
    """Return the shapes of a network's variables."""
    keys = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
    batch = {key: jax.ShapeDtypeStruct((1, 1), jnp.int32) for key in keys}
    return jax.eval_shape(model.init, jax.random.key(0), batch)


def _layout(name: str, variables: Variables) -> convert.Layout:
    flat = convert.flatten(variables)
    gated = any("/ffn_gate/" in path for path in flat)
    layout = {}
    for path, leaf in flat.items():
        axes = tuple(range(leaf.ndim))[:: -1 if path.endswith("/kernel") else 1]
        layout[path] = (huggingface_names.to_name(name, path, gated), axes)
    return layout


def _to_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert {"name": ..., **options} to a config.json that states every default."""
    options = dict(options)
    name = options.pop("name", "")
    if name not in _FAMILIES:
        raise UserError(f'no config.json is known for "{name}"; there are {", ".join(_FAMILIES)}')
    if name != "bert":
        for key in ("num_classes", "class_names"):  # of the task, not of a model of tokens
            options.pop(key, None)
    fields = [field.name for field in dataclasses.fields(_FAMILIES[name][0])]
    known = {key: value for key, value in options.items() if key in fields}
    complete = _FAMILIES[name][0](**known).complete()
    return to_config(name, {**options, **{key: getattr(complete, key) for key in fields}})
