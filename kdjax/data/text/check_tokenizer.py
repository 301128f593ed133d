"""Comparison of the data's tokenizer with that of a network."""

import warnings
from pathlib import Path
from typing import Any

from kdjax.data.text import tokenize
from kdjax.data.text.tokenize import Tokenizer
from kdjax.data.text.tokenizer_folder import byte_level
from kdjax.errors import UserError

# texts that tokenizers with the same vocabulary but other settings encode differently
_PROBES = ("Ann met Élan at CAFÉ naïve.", "東京 don't  stop\t(now): 3.14 a_b <x>", "an e\u0301lan")
_MAX_WORDS = 2000  # words that are encoded as texts, which detects another order of BPE's merges


def check_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Refuse the folder of a network that was trained with another tokenizer.

    A folder without a vocab.txt, tokenizer.json or vocab.json is accepted with a warning.

    Raises:
        UserError: the words, their order, or the ids of some text differ.
    """
    vocabulary = ("vocabulary", "vocab.txt", tokenize.wordpiece)
    file = ("tokenizer", "tokenizer.json", tokenize.from_file)
    pair = ("tokenizer", "vocab.json", byte_level)
    # the data's kind first
    kinds = (vocabulary, file, pair) if tokenizer.plain else (file, vocabulary, pair)
    for key, name, reader in kinds:
        if not Path(folder, name).is_file():
            continue
        if _signature(reader(Path(folder, name))) != _signature(tokenizer):
            raise UserError(
                f"{folder} has read another vocabulary than the data's, or with other settings; "
                f"set data.{key}={folder}"
            )
        return
    if Path(folder).is_dir():
        warnings.warn(f"{folder} holds no vocabulary; the data's is assumed", stacklevel=2)


def _signature(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """Return a signature that is equal for tokenizers that give equal ids."""
    vocabulary = tokenize.words(tokenizer)
    words = [word for word in vocabulary if word[:1] not in ("[", "<")]
    encodings = tokenizer.encoder.encode_batch([*_PROBES, *words[:_MAX_WORDS]])
    ids = [encoding.ids for encoding in encodings]
    return vocabulary, ids, tokenizer.pad_id, tokenizer.end_id
