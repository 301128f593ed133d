"""Options of decoders that follow from several keys of config.json: layers, rotations, biases."""

from collections.abc import Mapping
from typing import Any

from kdjax.errors import UserError

_KINDS = {"full_attention": "global", "sliding_attention": "local"}
_ROTARY = ("llama", "mistral", "qwen2", "qwen3")


def read(name: str, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of a decoder that follow from several keys; {} of other networks.

    Raises:
      UserError: an unsupported variant of the network.
    """
    if name == "gpt_neo":
        return _gpt_neo_options(config, where)
    if name == "gpt2":
        for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
            if config.get(key):
                raise UserError(f"{where}: {key} is true, which is not supported")
        return {}
    return _llama_options(name, config, where) if name in _ROTARY else {}


def write(name: str, left: dict[str, Any]) -> dict[str, Any]:
    """Remove the options that `read` returns from `left`, and return their keys of config.json.

    Raises:
      UserError: a value that the family's config.json cannot hold.
    """
    if name == "gpt_neo":
        kinds = list(left.pop("layers"))
        return {"attention_layers": kinds, "attention_types": [[kinds, 1]]}
    if name == "gpt2":
        left.pop("window")
        if "local" in left.pop("layers"):
            raise UserError("a gpt2 of Hugging Face has global layers only")
        return {"tie_word_embeddings": True}
    return _llama_config(name, left) if name in _ROTARY else {}


def _gpt_neo_options(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    kinds = config.get("attention_layers")
    if kinds is None and "attention_types" in config:
        kinds = [kind for kinds, times in config["attention_types"] for kind in kinds * times]
    if kinds is None:
        raise UserError(f'{where}: lacks "attention_types", which a gpt_neo must have')
    return {"layers": tuple(kinds)}


def _llama_options(name: str, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    options: dict[str, Any] = {"tied": bool(config.get("tie_word_embeddings", False))}
    if name in ("llama", "qwen3"):
        options["attention_bias"] = options["out_bias"] = bool(config.get("attention_bias"))
    if name == "llama":
        options["ffn_bias"] = bool(config.get("mlp_bias"))
    return options | _rotations(config, where) | _windows(name, config, where)


def _rotations(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the rotary options, in one key (transformers 5) or in two (older releases)."""
    table = config.get("rope_parameters")
    scaling = config.get("rope_scaling") if table is None else table
    if not isinstance(scaling, Mapping | None):
        raise UserError(f"{where}: rope_scaling is {scaling!r}; it must be a table")
    scaling = dict(scaling or {})
    theta = scaling.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    share = scaling.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share not in (None, 1.0):
        raise UserError(f"{where}: partial_rotary_factor is {share}; only 1 is supported")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {"rope_theta": float(theta), "rope_scaling": None if kind == "default" else scaling}


def _windows(name: str, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the window and its layers; null is no window, a missing key the family's default."""
    if name == "llama":
        return {}
    window = config.get("sliding_window", 4096)
    if name == "mistral":
        return {"window": window}
    kinds = config.get("layer_types")
    if not config.get("use_sliding_window") or window is None:
        return {"window": None}
    if kinds is None:
        first = config.get("max_window_layers", 28)
        layers = range(config["num_hidden_layers"])
        return {
            "window": window,
            "layers": tuple("local" if i >= first else "global" for i in layers),
        }
    if set(kinds) - set(_KINDS):
        raise UserError(f"{where}: layer_types is {kinds}; use {' or '.join(_KINDS)}")
    return {"window": window, "layers": tuple(_KINDS[kind] for kind in kinds)}


def _llama_config(name: str, left: dict[str, Any]) -> dict[str, Any]:
    scaling = left.pop("rope_scaling") or {"rope_type": "default"}
    theta, layers, window = (left.pop(key, None) for key in ("rope_theta", "layers", "window"))
    config = {
        "rope_parameters": {"rope_theta": theta, **scaling},
        "rope_theta": theta,
        "rope_scaling": None if scaling["rope_type"] == "default" else scaling,
        "tie_word_embeddings": left.pop("tied"),
    }
    if name in ("llama", "qwen3"):
        config["attention_bias"] = left.pop("attention_bias")
        if left.pop("out_bias") != config["attention_bias"]:
            raise UserError(f"a {name} of Hugging Face has equal out_bias and attention_bias")
    if name == "llama":
        config["mlp_bias"] = left.pop("ffn_bias")
    elif name == "mistral":
        if len(set(layers)) > 1:
            raise UserError("a mistral of Hugging Face has layers of one kind")
        config["sliding_window"] = window if "local" in layers else None
    else:
        names = {kind: spelling for spelling, kind in _KINDS.items()}
        config |= {"use_sliding_window": window is not None, "sliding_window": window}
        config["layer_types"] = [names[kind] for kind in layers]
    return config
