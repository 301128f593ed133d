"""Tokenizers of a folder, whichever files hold it: tokenizer.json, vocab.txt, or byte-level BPE."""

from pathlib import Path
from typing import Any

from kdjax.data.text import tokenize
from kdjax.data.text.tokenize import Tokenizer
from kdjax.data.text.tokenizer_settings import (
    SPECIAL_SETTINGS,
    read_class,
    read_settings,
    token_id,
)
from kdjax.errors import UserError

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_THROUGH_JSON = (
    "is read through its tokenizer.json only: write that with the reference library "
    "(AutoTokenizer.from_pretrained(...).save_pretrained(...))"
)
_SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
# beginnings of the classes whose tokenizers split a text as GPT-2's
_LIKE_GPT2 = ("GPT2", "Roberta", "Bart", "Longformer", "CodeGen", "Deberta", "PreTrained")
_ROBERTA = ("<s>", "</s>", "<mask>")  # tokens that GPT-2's vocabulary has not


def has_tokenizer(folder: str | Path) -> bool:
    """Return whether a folder holds a tokenizer that `read_tokenizer` knows."""
    return any(Path(folder, name).is_file() for name in _FILES)


def read_tokenizer(path: str | Path, key: str) -> Tokenizer:
    """Return the tokenizer of a file or a folder.

    Of a folder the first of tokenizer.json, vocab.txt, vocab.json with merges.txt is read;
    `key` "data.vocabulary" prefers vocab.txt.

    Raises:
        UserError: there is none of them, or it is damaged.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        names = [name for name in _FILES if (file / name).is_file()]
        if key == "data.vocabulary":
            names.sort(key=lambda name: name != "vocab.txt")
        if not names:
            raise UserError(f"{key}={path} {_absent(file)}")
        file /= names[0]
    if file.name == "vocab.json":
        return byte_level(file)
    if file.suffix == ".json" or (file.suffix != ".txt" and key == "data.tokenizer"):
        return tokenize.from_file(file)
    return tokenize.wordpiece(file)


def _absent(folder: Path) -> str:
    for name in _SENTENCEPIECE:
        if (folder / name).is_file():
            return f"holds {name}, which {_THROUGH_JSON}"
    return "holds no tokenizer.json, vocab.txt, or vocab.json with merges.txt"


def byte_level(file: Path) -> Tokenizer:
    """Return the byte-level BPE of a vocab.json and the merges.txt beside it: GPT-2's, RoBERTa's.

    A vocabulary with "<s>", "</s>" and "<mask>" puts the first two around a text, as RoBERTa's.

    Raises:
        UserError: a file is missing or damaged, the merges are not those of the vocabulary, or the
            folder names a class that splits texts in another way, as Qwen2's.
    """
    library, merges = tokenize.load_library(), file.with_name("merges.txt")
    if not merges.is_file():
        raise UserError(f"{merges} does not exist; a vocab.json needs it")
    if (kind := read_class(file)) and not kind.startswith(_LIKE_GPT2):
        raise UserError(f"{file} is of a {kind}, which {_THROUGH_JSON}")
    try:
        encoder = library.Tokenizer(library.models.BPE.from_file(str(file), str(merges)))
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} and merges.txt are no byte-level BPE ({reason})") from error
    ids, settings = encoder.get_vocab(), read_settings(file)
    prefix = bool(settings.get("add_prefix_space", False))
    encoder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    encoder.decoder = library.decoders.ByteLevel()
    special = [word for word in (*_ROBERTA, "<pad>", "<unk>", "<|endoftext|>") if word in ids]
    encoder.add_special_tokens(
        [library.AddedToken(word, lstrip=word == "<mask>", special=True) for word in special]
    )
    encoder.post_processor = _processor(library, ids, prefix)
    pad, end = (token_id(ids, settings, key) for key in SPECIAL_SETTINGS)
    return Tokenizer(encoder, max(ids.values(), default=-1) + 1, pad or 0, end, False, settings)


def _processor(library: Any, ids: dict[str, int], prefix: bool) -> Any:
    if any(word not in ids for word in _ROBERTA):
        return library.processors.ByteLevel(trim_offsets=False)
    first, last = (("<s>", ids["<s>"]), ("</s>", ids["</s>"]))
    return library.processors.RobertaProcessing(last, first, add_prefix_space=prefix)
