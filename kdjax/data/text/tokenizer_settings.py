"""The settings of a tokenizer: the tokenizer_config.json in the folder of its vocabulary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import UserError

# setting -> attribute of the library's normaliser of BERT
_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_SIDES = ("left", "right")
# setting of a Llama's tokenizer -> the setting that names the token which it adds
_ADDED = {"add_bos_token": "bos_token", "add_eos_token": "eos_token"}
# setting that names a special token -> its usual spellings
SPECIAL_SETTINGS = {
    "pad_token": ("[PAD]", "<pad>"),
    "eos_token": ("[SEP]", "</s>", "<|endoftext|>"),
}


def read_settings(vocabulary: Path) -> dict[str, Any]:
    """Read the supported settings of a vocabulary's file; {} if there are none.

    Raises:
        UserError: the file is damaged, or has unsupported settings.
    """
    path = vocabulary.with_name("tokenizer_config.json")
    tokens = _read_table(vocabulary.with_name("special_tokens_map.json"))
    settings = {**tokens, **{k: x for k, x in _read_table(path).items() if x is not None}}
    for key in (*_NORMALIZER, *_ADDED, "add_prefix_space"):
        if not isinstance(settings.get(key), bool | None):
            raise UserError(f"{path}: {key} is {settings[key]!r}; it must be true, false or null")
    if settings.get("truncation_side", "right") not in _SIDES:
        side = settings["truncation_side"]
        raise UserError(f"{path}: truncation_side is {side!r}; it must be left or right")
    if settings.get("do_basic_tokenize") is False or settings.get("never_split"):
        raise UserError(f"{path}: do_basic_tokenize=false and never_split are not supported")
    obeyed = [*_NORMALIZER, *SPECIAL_SETTINGS, "truncation_side", "add_prefix_space"]
    if str(settings.get("tokenizer_class")).startswith("Llama"):
        obeyed += ["tokenizer_class", *_ADDED, "bos_token"]
    return {key: settings[key] for key in obeyed if settings.get(key) is not None}


def read_class(vocabulary: Path) -> str:
    """Return the class that a vocabulary's tokenizer_config.json names; "" if it names none."""
    table = _read_table(vocabulary.with_name("tokenizer_config.json"))
    return str(table.get("tokenizer_class") or "")


def _read_table(path: Path) -> dict[str, Any]:
    """Read a table of settings; {} without the file."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a table of settings") from error


def apply_settings(encoder: Any, settings: Mapping[str, Any]) -> None:
    """Set what the parts of a tokenizer have: BERT's normaliser case, accents, Chinese characters.

    A byte-level one gets the space before a text, a Llama's its tokens around it.
    """
    for key, attribute in _NORMALIZER.items():
        if key in settings and hasattr(encoder.normalizer, attribute):
            setattr(encoder.normalizer, attribute, settings[key])
    byte_level = type(encoder.pre_tokenizer).__name__ == "ByteLevel"
    if byte_level and "add_prefix_space" in settings:
        encoder.pre_tokenizer.add_prefix_space = settings["add_prefix_space"]
    if any(key in settings for key in _ADDED):
        _add_tokens(encoder, settings)


def _add_tokens(encoder: Any, settings: Mapping[str, Any]) -> None:
    """Put the first and the last token around a text, as a Llama's settings say."""
    from tokenizers import processors

    words = {
        key: _content(settings.get(name))
        for key, name in _ADDED.items()
        if settings.get(key, key == "add_bos_token")
    }
    first, last = (words.get(key, "") for key in _ADDED)
    pieces = [[f"{word}:{side}" for word in (first, text, last) if word]
              for side, text in enumerate(("$A", "$B"))]  # fmt: skip
    special = [(word, encoder.token_to_id(word)) for word in dict.fromkeys((first, last)) if word]
    if unknown := [word for word, number in special if number is None]:
        raise UserError(f"tokenizer_config.json names the token {unknown[0]!r}, which is no token")
    encoder.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces[0]), pair=" ".join(pieces[0] + pieces[1]), special_tokens=special
    )


def _content(token: Any) -> str:
    return str(token.get("content")) if isinstance(token, Mapping) else str(token or "")


def token_id(ids: Mapping[str, int], settings: Mapping[str, Any], key: str) -> int | None:
    """Return the id of a special token; its setting is a text or a table."""
    names = (_content(settings.get(key)), *SPECIAL_SETTINGS[key])
    return next((ids[word] for word in names if word in ids), None)
