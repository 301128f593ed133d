"""Tokenizers of language models: of a folder, or a byte-level BPE that is trained on the texts."""

import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kdjax.data import user_cache
from kdjax.data.text import tokenize
from kdjax.data.text.tokenize import Tokenizer
from kdjax.errors import UserError

END = "<|endoftext|>"  # of a trained vocabulary: ends a document, and stands before its first token
_ALPHABET = 256  # bytes


def train_byte_level(texts: Sequence[str], size: int) -> Tokenizer:
    """Return a byte-level BPE of at most `size` tokens, trained on texts and cached.

    The cache is the folder kdjax/tokenizers in `$XDG_CACHE_HOME` (~/.cache).

    Raises:
        UserError: `size` has no room for all bytes.
    """
    if size <= _ALPHABET:
        raise UserError(f"data.bpe_size is {size}; it must be > {_ALPHABET}, the number of bytes")
    content = hashlib.sha256(f"{size}\0".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        content.update(f"{len(encoded)}\0".encode() + encoded)
    file = user_cache.folder("tokenizers") / content.hexdigest()[:32] / "tokenizer.json"
    if not file.is_file():
        encoder = _train(texts, size)
        with suppress(OSError):  # a cache that cannot be written costs only time
            user_cache.write(file, encoder.to_str())
        if not file.is_file():
            with tempfile.TemporaryDirectory() as folder:
                encoder.save(str(Path(folder, "tokenizer.json")))
                return tokenize.from_file(folder)
    return tokenize.from_file(file)


def warn_if_lossy(tokenizer: Tokenizer, texts: Sequence[str], key: str) -> None:
    """Warn if the beginnings of some texts are not what their tokens say."""
    beginnings = [text[:500] for text in texts[:50]]
    encodings = tokenizer.encoder.encode_batch(beginnings, add_special_tokens=False)
    for text, encoding in zip(beginnings, encodings, strict=True):
        decoded = tokenizer.encoder.decode(encoding.ids, skip_special_tokens=False)
        before, after = text.lstrip(), decoded.lstrip()
        if before != after:
            equal = (a == b for a, b in zip(before, after, strict=False))
            shorter = min(len(before), len(after))
            at = max(0, next((i for i, same in enumerate(equal) if not same), shorter) - 5)
            before, after = before[at : at + 15], after[at : at + 15]
            warnings.warn(
                f"{key} does not keep texts: {before!r} becomes {after!r}; numbers per byte do not "
                "compare with those of other tokenizers",
                stacklevel=4,
            )
            return


def start_id(tokenizer: Tokenizer) -> int | None:
    """Return the token before the first one of a text: what the tokenizer adds, else the end."""
    added = tokenizer.encoder.encode("").ids
    return added[0] if added else tokenizer.end_id


def _train(texts: Sequence[str], size: int):
    library = tokenize.load_library()
    encoder = library.Tokenizer(library.models.BPE())
    encoder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(texts, trainer)
    return encoder
