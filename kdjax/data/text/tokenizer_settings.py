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
    if not path.is_file():
        return {}
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a table of settings") from error
    for key in _NORMALIZER:
        if not isinstance(settings.get(key), bool | None):
            raise UserError(f"{path}: {key} is {settings[key]!r}; it must be true, false or null")
    if settings.get("do_basic_tokenize") is False or settings.get("never_split"):
        raise UserError(f"{path}: do_basic_tokenize=false and never_split are not supported")
    obeyed = (*_NORMALIZER, *SPECIAL_SETTINGS)
    return {key: settings[key] for key in obeyed if settings.get(key) is not None}


def apply_settings(encoder: Any, settings: Mapping[str, Any]) -> None:
    """Set case, accents and Chinese characters of a BERT normaliser; others are not changed."""
    for key, attribute in _NORMALIZER.items():
        if key in settings and hasattr(encoder.normalizer, attribute):
            setattr(encoder.normalizer, attribute, settings[key])


def token_id(ids: Mapping[str, int], settings: Mapping[str, Any], key: str) -> int | None:
    """Return the id of a special token; its setting is a text or a table."""
    token = settings.get(key)
    token = token.get("content") if isinstance(token, Mapping) else token
    return next((ids[word] for word in (str(token), *SPECIAL_SETTINGS[key]) if word in ids), None)
