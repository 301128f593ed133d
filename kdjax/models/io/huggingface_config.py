"""config.json of BERT, T5 and GPT-Neo to the options of `models.build`, and back."""

from collections.abc import Mapping
from typing import Any

from kdjax.errors import UserError
from kdjax.models.io.class_order import is_numbered

# config.json's key -> the option of `models.build` with the same value
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
    "scale_decoder_outputs": "scale_outputs",
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
    """Convert a config.json to a network's name and its options.

    A BERT has 2 classes by default, as in the reference library. The option `tied` of a T5 follows
    from its file of weights, not from its config.

    Raises:
      UserError: an unknown model_type, a missing key, or an unsupported variant of the network.

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
    if config.get("is_decoder"):
        raise UserError(f"{where}: is_decoder is true: a bert that sees earlier tokens only")
    labels = config.get("id2label")
    classes = config.get("num_labels", 2) if labels is None else len(labels)
    dropout = config.get("classifier_dropout")
    return {"num_classes": classes} | ({} if dropout is None else {"head_dropout": dropout})


def class_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the classes in the order of the outputs; () if there are none.

    Those of "label2id" count if "id2label" has none but "LABEL_0", ...

    Raises:
      UserError: numbers other than 0, 1, ..., or tables that contradict each other.
    """
    tables = []
    try:
        by_label = config.get("label2id") or {}
        pairs = [dict(config.get("id2label") or {}), {n: label for label, n in by_label.items()}]
        for numbered in ({int(n): str(label) for n, label in pair.items()} for pair in pairs):
            tables.append(tuple(numbered[n] for n in range(len(numbered))))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: id2label and label2id must number the classes from 0") from error
    named = list(dict.fromkeys(table for table in tables if not is_numbered(table)))
    if len(named) > 1:
        raise UserError(f"{where}: label2id contradicts id2label; correct one or remove it")
    return (*named, *tables)[0]


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
    """Convert complete options to a config.json; the inverse of `to_options`.

    `options` are all those of `models.build`; of a BERT also "num_classes", perhaps "class_names".

    Raises:
      UserError: an unknown option.
    """
    left = {k: v for k, v in options.items() if v is not None and k not in ("dtype", "axis_name")}
    config: dict[str, Any] = {"model_type": name, "architectures": [_CLASSES[name]]}
    for key, option in FAMILIES[name].items():
        if option in left:
            config[key] = left.pop(option)
    if name == "bert":
        generic = [f"LABEL_{index}" for index in range(left.pop("num_classes"))]
        labels = left.pop("class_names", ()) or generic
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
        if len(labels) == 1:
            config["problem_type"] = "regression"
        config["classifier_dropout"] = left.pop("head_dropout")
    elif name == "t5":
        config |= _t5_config(left)
    else:
        config |= _gpt_neo_config(left)
    if left:
        raise UserError(f'a {name} has no option "{min(left)}"')
    return config


def _t5_config(left: dict[str, Any]) -> dict[str, Any]:
    forms = {version: form for form, version in _T5_FORMS.items()}
    return {
        "feed_forward_proj": forms[left.pop("version")],
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": left.pop("tied"),
        "num_decoder_layers": left.pop("decoder_layers"),
        "relative_attention_max_distance": left.pop("max_distance"),
    }


def _gpt_neo_config(left: dict[str, Any]) -> dict[str, Any]:
    kinds, ffn_width = list(left.pop("layers")), left.pop("ffn_width")
    return {
        "attention_layers": kinds,
        "attention_types": [[kinds, 1]],
        "intermediate_size": ffn_width,
    }
