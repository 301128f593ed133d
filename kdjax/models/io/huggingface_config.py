"""config.json of Hugging Face's folders to the options of `models.build`, and back."""

from collections.abc import Mapping
from typing import Any

from kdjax.errors import UserError
from kdjax.models.io import huggingface_decoders as decoders
from kdjax.models.io.class_order import is_numbered
from kdjax.models.io.huggingface_keys import (
    ACTIVATIONS,
    ALIASES,
    ARCHITECTURES,
    FIXED,
    KEYS,
    REQUIRED,
)
from kdjax.models.transformers import FAMILIES

_T5_FORMS = {"relu": "1.0", "gated-gelu": "1.1"}


def to_options(config: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Convert a config.json to a network's name and its options.

    A classifier has 2 classes by default, as in Hugging Face. The option `tied` of a T5 follows
    from its file of weights, not from its config.

    Raises:
      UserError: an unknown model_type, a missing key, or an unsupported variant of the network.

    >>> sizes = {"vocab_size": 9, "hidden_size": 4, "num_layers": 2, "num_heads": 2}
    >>> rest = {"max_position_embeddings": 8, "attention_layers": ["global", "local"]}
    >>> to_options({"model_type": "gpt_neo", **sizes, **rest}, "config.json")[1]["layers"]
    ('global', 'local')
    """
    name = config.get("model_type")
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in KEYS:
        known = ", ".join((*KEYS, *ALIASES))
        raise UserError(f"{where}: model_type is {name!r}; the known ones are {known}")
    options: dict[str, Any] = {}
    for key, option in KEYS[name].items():
        if config.get(key) is not None:
            options[option] = config[key]
        elif option in REQUIRED:
            raise UserError(f'{where}: lacks "{key}", which a {name} must have')
    if (activation := options.get("activation")) in ACTIVATIONS:
        options["activation"] = ACTIVATIONS[activation]
    if is_classifier(name):
        labels = config.get("id2label")
        options["num_classes"] = config.get("num_labels", 2) if labels is None else len(labels)
    if name in ("bert", "roberta"):
        return name, options | _bert_options(config, where)
    if name == "t5":
        return name, options | _t5_options(config, where)
    return name, options | decoders.read(name, config, where)


def is_classifier(name: str) -> bool:
    """Return whether a family's logits are of classes, not of tokens."""
    return FAMILIES[name].prompt is None


def _bert_options(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(f"{where}: position_embedding_type is {kind!r}; only absolute is supported")
    if config.get("is_decoder"):
        raise UserError(f"{where}: is_decoder is true, but causal attention is not supported")
    if config["model_type"] == "bert":
        return {}
    padding = config.get("pad_token_id")
    return {"first_position": 1 + (1 if padding is None else padding)}


def class_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the classes in the order of the outputs; () if there are none.

    The names of "label2id" are used if "id2label" has only "LABEL_0", ...

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


def _t5_options(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    form = config.get("feed_forward_proj", "relu")
    if form not in _T5_FORMS:
        raise UserError(f"{where}: feed_forward_proj is {form!r}; use {' or '.join(_T5_FORMS)}")
    return {
        "version": _T5_FORMS[form],
        "decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "max_distance": config.get("relative_attention_max_distance", 128),
    }


def to_config(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert complete options to a config.json; the inverse of `to_options`.

    Args:
      name: of the family.
      options: all options of `models.build`; of a classifier also "num_classes" and, optionally,
        "class_names".

    Raises:
      UserError: an unknown option, or a value that the family's config.json cannot hold.
    """
    left = {k: v for k, v in options.items() if k not in ("dtype", "axis_name")}
    config: dict[str, Any] = {"model_type": name, "architectures": [ARCHITECTURES[name]]}
    for option, value in FIXED[name].items():
        if left.pop(option, value) != value:
            raise UserError(
                f"a {name} of Hugging Face has {option} {value!r}: export it in another form"
            )
    for key, option in KEYS[name].items():
        if option in left and (value := left.pop(option)) is not None:
            config[key] = value
    if is_classifier(name):
        config |= _labels(left)
    if name == "roberta":
        config["pad_token_id"] = left.pop("first_position") - 1
        if left.pop("pooler_dropout") != config["classifier_dropout"]:
            raise UserError(
                "a roberta of Hugging Face has one dropout rate: set pooler_dropout to head_dropout"
            )
    elif name == "t5":
        config |= _t5_config(left)
    else:
        config |= decoders.write(name, left)
    if left:
        raise UserError(f'a {name} has no option "{min(left)}"')
    return config


def _labels(left: dict[str, Any]) -> dict[str, Any]:
    generic = [f"LABEL_{index}" for index in range(left.pop("num_classes"))]
    labels = left.pop("class_names", ()) or generic
    table = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return table | ({"problem_type": "regression"} if len(labels) == 1 else {})


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
