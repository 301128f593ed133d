"""Networks in folders of Hugging Face's transformers: config.json and model.safetensors."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError
from kdjax.models.io import convert, huggingface_names, weight_files
from kdjax.models.io.huggingface_config import is_classifier, to_config, to_options
from kdjax.models.io.huggingface_folder import read_config, read_network
from kdjax.models.transformers import FAMILIES, TRANSFORMERS
from kdjax.types import Array, Model, Variables

_HEAD_LAYERS = ("fc", "distillation_fc", "pooler")  # that a file of another task may lack


def load_huggingface(
    folder: str | os.PathLike[str], *, num_classes: int | None = None, key: Array | None = None
) -> tuple[Model, Variables]:
    """Read a network of one of the `transformers.FAMILIES`.

    BERT, RoBERTa and DistilBERT have a head for classification or regression, ViT and DeiT for
    classification. The others have logits of tokens; `with_choices` makes classifiers of them. All
    tensors are converted to float32. Buffers (position ids, causal masks) are ignored.

    Args:
      folder: holds config.json and model.safetensors or pytorch_model.bin, in one file or in
        shards.
      num_classes: width of a new head that replaces the file's, for fine-tuning.
      key: of the new head's initial values; required with `num_classes`.

    Returns:
      The model and its variables.

    Raises:
      UserError: a file is missing or damaged, an unknown model_type, or tensors that are missing,
        unexpected or misshapen; lists them with the file's names and layouts.
    """
    if num_classes is None:
        return _load(folder)
    if key is None:
        raise UserError(f"{folder}: num_classes makes a new head, which needs a key: pass key")
    model, variables = load_headless(folder, num_classes)
    return model, draw_head(variables, key)


def load_headless(folder: str | os.PathLike[str], num_classes: int) -> tuple[Model, Variables]:
    """Read a classifier as `load_huggingface`, with zeros for the head that `draw_head` draws."""
    return _load(folder, num_classes)


def _load(
    folder: str | os.PathLike[str], num_classes: int | None = None
) -> tuple[Model, Variables]:
    name, options, tensors = read_network(folder)
    if num_classes is not None and not is_classifier(name):
        raise UserError(f"{folder}: num_classes is for classifiers, but a {name} predicts tokens")
    config = read_config(folder)
    if num_classes is not None:
        options = {**options, "num_classes": num_classes}
    elif config.get("problem_type") == "multi_label_classification":
        raise UserError(f"{folder} predicts several classes at once, which is not supported")
    model = FAMILIES[name].factory(FAMILIES[name].options(**options))
    template = _template(model, config)
    layout = _layout(name, template)
    if num_classes is not None:
        tensors = _without_head(name, tensors, template, layout)
    where = weight_files.weights_file(folder)
    what = f"{where}: the tensors are not those of this {name}"
    return model, convert.from_file_layout(template, tensors, layout, what)


def draw_head(variables: Variables, key: Array) -> Variables:
    """Draw the kernels of a head that are zero from N(0, 0.02^2), as Hugging Face does."""
    params = dict(variables.params)
    for number, layer in enumerate(_HEAD_LAYERS):
        kernel = params.get(layer, {}).get("kernel")
        if kernel is not None and not np.any(kernel):
            own = key if number == 0 else jax.random.fold_in(key, number)
            drawn = 0.02 * jax.random.normal(own, kernel.shape[::-1])
            params[layer] = {**params[layer], "kernel": drawn.T}
    return variables._replace(params=params)


def _without_head(
    name: str,
    tensors: Mapping[str, np.ndarray],
    template: Variables,
    layout: convert.Layout,
) -> dict[str, np.ndarray]:
    """Replace the last layers of a file by zeros; add a pooler of zeros if it has none."""
    flat, heads = convert.flatten(template), huggingface_names.HEADS[name]
    replaced = {x: y for x, y in tensors.items() if not x.startswith(heads)}
    for path, (tensor, axes) in layout.items():
        layer, shape = path.split("/")[1], [flat[path].shape[axis] for axis in axes]
        if layer == "pooler" and tensor in tensors:
            replaced[tensor] = tensors[tensor]
        elif layer in _HEAD_LAYERS:
            replaced[tensor] = np.zeros(shape, np.float32)
    return replaced


def save_huggingface(
    folder: str | os.PathLike[str], config_options: Mapping[str, Any], variables: Variables
) -> None:
    """Write config.json and model.safetensors, which `load_huggingface` reads back exactly.

    Args:
      folder: created if missing; existing files are replaced.
      config_options: the content of a config.json (with "model_type"), or {"name": "bert", ...}
        with options of `models.build`, and "class_names" if they are known; missing options have
        their defaults.
      variables: of that network, also if `with_choices` wraps it.

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
    if FAMILIES[name].factory is FAMILIES["vit"].factory:
        options |= _image_keys(config, options, variables)
    model = FAMILIES[name].factory(FAMILIES[name].options(**options))
    expected = convert.flatten(_template(model, config))
    arrays = convert.flatten(variables)
    shapes = {path: tuple(leaf.shape) for path, leaf in expected.items()}
    convert.check_tensors(shapes, arrays, f"the variables are not those of this {name}")
    tensors = huggingface_names.fuse(convert.to_file_layout(variables, _layout(name, variables)))
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error}") from error
    convert.write_safetensors(tensors, target / "model.safetensors", {"format": "pt"})


def _image_keys(
    config: dict[str, Any], options: Mapping[str, Any], variables: Variables
) -> dict[str, Any]:
    """Add the keys of a ViT that follow from its arrays to `config`; return its image size."""
    patch, position = variables.params["patch"]["kernel"], variables.params["position"]
    special = 1 + ("distillation_token" in variables.params)
    side = round((position.shape[1] - special) ** 0.5) * patch.shape[0]
    config.setdefault("num_channels", patch.shape[2])
    config.setdefault("image_size", side)
    return {"image_size": options.get("image_size") or side}


def _template(model: Model, config: Mapping[str, Any]) -> Variables:
    """Return the shapes of a network's variables."""
    keys = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
    batch = {key: jax.ShapeDtypeStruct((1, 1), jnp.int32) for key in keys}
    side, channels = config.get("image_size") or 224, config.get("num_channels") or 3
    batch["image"] = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), batch)


def _layout(name: str, variables: Variables) -> convert.Layout:
    flat = convert.flatten(variables)
    gated = any("/ffn_gate/" in path for path in flat)
    by_input = {2: (0, 1) if name == "gpt2" else (1, 0), 4: (3, 2, 0, 1)}
    layout = {}
    for path, leaf in flat.items():
        axes = by_input[leaf.ndim] if path.endswith("/kernel") else tuple(range(leaf.ndim))
        layout[path] = (huggingface_names.to_name(name, path, gated), axes)
    return layout


def _to_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert {"name": ..., **options} to a config.json that states every default."""
    options = dict(options)
    name = options.pop("name", "")
    if name not in TRANSFORMERS:
        raise UserError(f'no config.json is known for "{name}"; there are {", ".join(FAMILIES)}')
    family = TRANSFORMERS[name]
    fields = [field.name for field in dataclasses.fields(family.options())]
    known = {key: value for key, value in options.items() if key in fields}
    complete = family.options(**known).complete()
    if family.factory is FAMILIES["vit"].factory:
        name = "deit" if complete.distilled else "vit"
    if not is_classifier(name):
        for key in ("num_classes", "class_names"):  # of the task, not of the language model
            options.pop(key, None)
    return to_config(name, {**options, **{key: getattr(complete, key) for key in fields}})
