"""Files of a Hugging Face folder: its network's options, classes and normalisation of images."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import UserError
from kdjax.models.io import huggingface_names, weight_files
from kdjax.models.io.huggingface_config import class_names, to_options
from kdjax.models.transformers import FAMILIES, TRANSFORMERS
from kdjax.types import Spec

_UNCHECKED = ("num_classes", "dtype", "axis_name", "image_size")  # options, besides dropout rates
_IMAGES = "preprocessor_config.json"


def check_options(
    folder: str | os.PathLike[str], network: Mapping[str, Any], keep_layers: Sequence[int] = ()
) -> None:
    """Refuse a network whose options differ from those of a folder's network.

    Args:
      folder: a folder for `load_huggingface`.
      network: {"name": ...} and options of `models.build`.
      keep_layers: layers of the folder's network that this one has; () is all.

    Raises:
      UserError: another family, or other values of options; names both values, except of options
        that follow from others.
    """
    path = Path(folder) / "config.json"
    config = read_config(folder)
    name, options = to_options(config, str(path))
    if network["name"] != name and not _is_size_of(network["name"], name):
        raise UserError(
            f"{folder} holds a {name}, not a {network['name']}; set model.name={name}, or "
            "model.name=huggingface, which reads all options from the folder"
        )
    if (start := config.get("decoder_start_token_id") or 0) != 0:
        raise UserError(f"{path}: decoder_start_token_id is {start}; only 0 is supported")
    make = TRANSFORMERS[network["name"]].options
    fields = [field.name for field in dataclasses.fields(make())]
    plain = make(**{key: x for key, x in network.items() if key in fields})
    model = plain.complete()
    tied = {"tied": model.tied} if "tied" in fields else {}
    source = FAMILIES[name].options(**{**options, **tied}).complete()
    faults = []
    for option in fields:
        if option in _UNCHECKED or option.endswith("dropout"):
            continue
        built, saved = getattr(model, option), getattr(source, option)
        saved = _select_option(option, saved, keep_layers) if keep_layers else saved
        if built != saved:
            follows = getattr(plain, option) is None
            faults.append((follows, f"{option} {saved!r}, the model {built!r}"))
    own = [fault for follows, fault in faults if not follows] or [fault for _, fault in faults]
    if own:
        raise UserError(
            f"{folder} has {'; '.join(own)}: set the folder's values, or model.name=huggingface, "
            "which reads all options from the folder"
        )


def _is_size_of(name: str, family: str) -> bool:
    """Return whether a name is that of a size of a family, such as vit_b_16 of vit."""
    known = TRANSFORMERS.get(name)
    if name in FAMILIES or known is None:
        return False
    return FAMILIES[family].factory is known.factory


def read_options(folder: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """Read the name and the options of a folder's network, for `models.build`.

    Raises:
      UserError: as `load_huggingface`, before it reads the weights.
    """
    name, options = to_options(read_config(folder), str(Path(folder) / "config.json"))
    if name == "t5" and weight_files.has_weights(folder):
        options["tied"] = read_network(folder)[1]["tied"]
    return name, options


def select_layer_options(options: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Return the options of a network that has these layers of the network with `options`."""
    return {option: _select_option(option, value, layers) for option, value in options.items()}


def _select_option(option: str, value: Any, layers: Sequence[int]) -> Any:
    if option in ("num_layers", "decoder_layers"):
        return len(layers)
    # `select_layers` refuses layers that do not exist
    by_layer = option == "layers" and not isinstance(value, str) and max(layers) < len(value)
    return tuple(value[layer] for layer in layers) if by_layer else value


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a folder's config.json.

    Raises:
      UserError: it is missing, damaged or not a table.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a table of settings")
    return config


def read_class_names(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the names of a folder's classes, in the order of the outputs; () if it has none.

    Raises:
      UserError: as `read_config`; tables of names that contradict each other.
    """
    return class_names(read_config(folder), str(Path(folder) / "config.json"))


def read_network(
    folder: str | os.PathLike[str],
) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Read the name, the options and the tensors, under their current names, of a folder's network.

    Raises:
      UserError: as `load_huggingface`.
    """
    config = read_config(folder)
    path = Path(folder) / "config.json"
    name, options = to_options(config, str(path))
    if config.get("quantization_config"):
        raise UserError(f"{path}: the weights are quantized; save them as float32, 16 or bfloat16")
    tensors = weight_files.read_weights(folder)
    has_head = "lm_head.weight" in tensors
    untied = config.get("tie_word_embeddings") is False
    tensors = huggingface_names.normalise(name, tensors, untied=untied and "tied" in options)
    if name in ("gpt_neo", "gpt2") and untied and not has_head:
        raise UserError(f"{path}: tie_word_embeddings is false, but the file has no lm_head.weight")
    if "tied" in options or name == "t5":
        # the tensors decide, because some configs are wrong about a tied head
        options["tied"] = "lm_head.weight" not in tensors and not untied
    return name, options, tensors


def read_normalisation(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the "mean", "std" and "scale" of a folder's normalisation of images; {} if it has none.

    Raises:
      UserError: preprocessor_config.json is damaged.
    """
    path = Path(folder) / _IMAGES
    if not path.is_file():
        return {}
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8")))
        rescaled = settings.get("do_rescale", True)
        scale = 1 / float(settings.get("rescale_factor", 1 / 255)) if rescaled else 1.0
        if not settings.get("do_normalize", True):
            return {"mean": [0.0], "std": [1.0], "scale": scale}  # of any number of channels
        keys = {"mean": "image_mean", "std": "image_std"}
        normalised = {name: [float(x) for x in settings[key]] for name, key in keys.items()}
        return {**normalised, "scale": scale}
    except KeyError:
        return {}
    except (OSError, ValueError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def write_special_tokens(
    folder: Path, start: int | None, end: int | None, word: Callable[[int], str]
) -> None:
    """Name the tokens that begin and end a text in the files that transformers reads.

    These are config.json, generation_config.json and tokenizer_config.json. The last one also says
    that the tokenizer.json holds the whole tokenizer.

    Args:
      folder: with config.json and the tokenizer.
      start: the token before a text's first one.
      end: the token after the last one.
      word: returns the text of a token.
    """
    both = (("bos_token_id", start), ("eos_token_id", end))
    ids = {name: number for name, number in both if number is not None}
    words = {name.removesuffix("_id"): word(number) for name, number in ids.items()}
    if not (folder / "vocab.txt").is_file():
        words["tokenizer_class"] = "PreTrainedTokenizerFast"
    for file, changes in (
        ("config.json", ids),
        ("generation_config.json", ids),
        ("tokenizer_config.json", words),
    ):
        path = folder / file
        table = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**changes, **table}, indent=2, sort_keys=True) + "\n")


def write_normalisation(folder: Path, spec: Spec, crop: float | None) -> None:
    """Write a preprocessor_config.json with the size and normalisation of a data set's images.

    `crop`: as in `kdjax.data.images.decode.View`; None of images that are not resized.
    """
    size = {"height": spec.shape[0], "width": spec.shape[1]}
    resized = {"image_processor_type": "ViTImageProcessor", "size": size}
    if crop is not None:  # the shorter side to size / crop, then the centre
        resized = {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": round(spec.shape[0] / crop)},
            "do_center_crop": True,
            "crop_size": size,
            "do_convert_rgb": spec.shape[-1] == 3,
        }
    settings = {
        **resized,
        "do_resize": True,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / spec.scale,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
    (folder / _IMAGES).write_text(json.dumps(settings, indent=2) + "\n")
