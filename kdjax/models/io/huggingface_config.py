"""config.json of BERT, T5 and GPT-Neo to the options of `models.build`, and back."""

from collections.abc import Mapping
from typing import Any

from kdjax.types import UserError

__all__ = ["FAMILIES", "to_config", "to_options"]

# config.json's key -> our option, where the value is the same
_BERT = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "num_attention_heads": "num_heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_length",
    "type_vocab_size": "token_types",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
_T5 = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "d_model": "width",
    "num_heads": "num_heads",
    "d_kv": "head_width",
    "d_ff": "ffn_width",
    "relative_attention_num_buckets": "buckets",
    "layer_norm_epsilon": "epsilon",
    "dropout_rate": "dropout",
}
_GPT_NEO = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "hidden_size": "width",
    "num_heads": "num_heads",
    "max_position_embeddings": "max_length",
    "window_size": "window",
    "activation_function": "activation",
    "layer_norm_epsilon": "epsilon",
    "resid_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "embed_dropout": "embedding_dropout",
}
FAMILIES: Mapping[str, Mapping[str, str]] = {"bert": _BERT, "t5": _T5, "gpt_neo": _GPT_NEO}
_CLASSES = {
    "bert": "BertForSequenceClassification",
    "t5": "T5ForConditionalGeneration",
    "gpt_neo": "GPTNeoForCausalLM",
}
_T5_FORMS = {"relu": "1.0", "gated-gelu": "1.1"}


def to_options(config: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Read a config.json: the network's name and the options that make it.

    What it does not say of a BERT's classes is 2, as in the reference library; whether a T5's head
    is tied is what its file of weights says, not its config.

    Args:
      config: the parsed file.
      where: how errors name it.

    Raises:
      UserError: an unknown model_type, a key that is missing, or a kind of network that is none
        of ours.

    >>> sizes = {"vocab_size": 9, "hidden_size": 4, "num_layers": 2, "num_heads": 2}
    >>> rest = {"max_position_embeddings": 8, "attention_layers": ["global", "local"]}
    >>> to_options({"model_type": "gpt_neo", **sizes, **rest}, "config.json")[1]["layers"]
    ('global', 'local')
    """
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"{where}: model_type is {name!r}; the known ones are {known}")
    options: dict[str, Any] = {}
    for key, option in FAMILIES[name].items():
        if config.get(key) is not None:
            options[option] = config[key]
        elif option in ("vocab_size", "num_layers", "width", "num_heads", "max_length"):
            raise UserError(f'{where}: lacks "{key}", which a {name} must have')
    reader = {"bert": _of_bert, "t5": _of_t5, "gpt_neo": _of_gpt_neo}[name]
    return name, options | reader(config, where)


def _of_bert(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(f"{where}: position_embedding_type is {kind!r}; only absolute is known")
    labels = config.get("id2label")
    classes = config.get("num_labels", 2) if labels is None else len(labels)
    dropout = config.get("classifier_dropout")
    return {"num_classes": classes} | ({} if dropout is None else {"head_dropout": dropout})


def _of_t5(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    form = config.get("feed_forward_proj", "relu")
    if form not in _T5_FORMS:
        raise UserError(f"{where}: feed_forward_proj is {form!r}; use {' or '.join(_T5_FORMS)}")
    return {
        "version": _T5_FORMS[form],
        "decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "max_distance": config.get("relative_attention_max_distance", 128),
    }


def _of_gpt_neo(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    kinds = config.get("attention_layers")
    if kinds is None and "attention_types" in config:
        kinds = [kind for kinds, times in config["attention_types"] for kind in kinds * times]
    if kinds is None:
        raise UserError(f'{where}: lacks "attention_types", which a gpt_neo must have')
    ffn_width = config.get("intermediate_size") or 4 * config["hidden_size"]
    return {"layers": tuple(kinds), "ffn_width": ffn_width}


def to_config(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a config.json: the inverse of `to_options`, for options that say every size.

    Options that are not said are left to the reference library's defaults.

    Args:
      name: "bert", "t5" or "gpt_neo".
      options: as for `models.build`, "num_classes" among them.

    Raises:
      UserError: no such family, or an option that it does not have.
    """
    if name not in FAMILIES:
        raise UserError(f'no config.json is known for "{name}"; there are {", ".join(FAMILIES)}')
    left = {k: v for k, v in options.items() if v is not None and k not in ("dtype", "axis_name")}
    config: dict[str, Any] = {"model_type": name, "architectures": [_CLASSES[name]]}
    for key, option in FAMILIES[name].items():
        if option in left:
            config[key] = left.pop(option)
    classes = left.pop("num_classes", None)
    if name == "bert":
        labels = {str(index): f"LABEL_{index}" for index in range(classes or 2)}
        config["id2label"] = labels
        config["label2id"] = {label: int(index) for index, label in labels.items()}
        if "head_dropout" in left:
            config["classifier_dropout"] = left.pop("head_dropout")
    elif name == "t5":
        config |= _t5_config(left)
    else:
        config |= _gpt_neo_config(config, left)
    if left:
        raise UserError(f'a {name} has no option "{min(left)}"')
    return config


def _t5_config(left: dict[str, Any]) -> dict[str, Any]:
    version = left.pop("version", "1.1")
    form = {version: form for form, version in _T5_FORMS.items()}[version]
    found: dict[str, Any] = {
        "feed_forward_proj": form,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": left.pop("tied", version == "1.0"),
    }
    pairs = (("decoder_layers", "num_decoder_layers"),
             ("max_distance", "relative_attention_max_distance"))  # fmt: skip
    return found | {theirs: left.pop(ours) for ours, theirs in pairs if ours in left}


def _gpt_neo_config(config: Mapping[str, Any], left: dict[str, Any]) -> dict[str, Any]:
    count = config.get("num_layers", 4)
    kinds = list(left.pop("layers", None) or (("global", "local")[i % 2] for i in range(count)))
    found: dict[str, Any] = {"attention_layers": kinds, "attention_types": [[kinds, 1]]}
    if "ffn_width" in left:
        found["intermediate_size"] = left.pop("ffn_width")
    return found
