"""Text to token ids with the library `tokenizers` (extra `text`): WordPiece or a tokenizer.json.

Encoded texts are ragged: one array has the ids of all texts in order. `save` writes a vocabulary
into the folder of a run; `wordpiece` and `from_file` read it. Both apply the tokenizer_config.json
in the vocabulary's folder.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.text.tasks import Prompt
from kdjax.data.text.tokenizer_settings import (
    SPECIAL_SETTINGS,
    apply_settings,
    read_settings,
    token_id,
)
from kdjax.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHUNK = 8192  # texts encoded at a time: bounds memory without changing the result
_ALPHABET = 1000  # characters of a trained vocabulary, as in BERT's vocabulary


class Tokenizer(NamedTuple):
    """A tokenizer of the library and the ids that batches need.

    `end_id` ends an answer (None if the vocabulary has no such token). `plain` is True for
    WordPiece: a vocab.txt and `settings`, the content of tokenizer_config.json, define it.
    """

    encoder: Any
    vocab_size: int
    pad_id: int
    end_id: int | None
    plain: bool
    settings: Mapping[str, Any] = {}


class Encoded(NamedTuple):
    """Texts as tokens: text i is `ids[start[i] : start[i + 1]]`."""

    ids: np.ndarray  # int32 [total]
    types: np.ndarray  # int32 [total]; 1 in the second text of a pair
    start: np.ndarray  # int64 [texts + 1]
    cut: np.ndarray  # bool [texts]; True of truncated texts


def wordpiece(path: str | Path) -> Tokenizer:
    """Return BERT's WordPiece for a vocab.txt (or the folder that contains one).

    Without the setting "do_lower_case", a vocabulary is cased if one word in a hundred has upper
    case; BERT's uncased vocabulary has none.

    Raises:
        UserError: the file is missing or no WordPiece vocabulary, or its settings require another
            tokenizer.
    """
    file = _existing(path, "vocab.txt", "data.vocabulary")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); give one token a line, UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    vocabulary, settings = lines[:-1] if lines[-1] == "" else lines, read_settings(file)
    cased = sum(word != word.lower() for word in vocabulary if word[:1] not in ("[", "<"))
    if "do_lower_case" not in settings and 100 * cased > len(vocabulary):
        settings["do_lower_case"] = False
    return from_words(vocabulary, str(file), settings)


def from_words(
    vocabulary: Sequence[str],
    where: str = "the vocabulary",
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Tokenizer:
    """Return BERT's WordPiece for tokens in the order of their ids.

    Unless `settings` differ, it lower-cases, strips accents, cleans control characters, and splits
    CJK characters and punctuation. The name of a special token in a text is treated as text.

    Raises:
        UserError: a missing special token, or a repeated token.

    >>> pieces = from_words(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "c"])
    >>> encode(pieces, [("Ab C",)], max_length=8).ids.tolist()
    [2, 5, 6, 7, 3]
    """
    library = load_library()
    ids = {word: number for number, word in enumerate(vocabulary)}
    missing = [word for word in SPECIAL[:4] if word not in ids]
    if missing:
        raise UserError(
            f"{where} lacks {', '.join(missing)}; a WordPiece vocabulary has one token a line, "
            f"{', '.join(SPECIAL[:4])} among them"
        )
    if len(ids) < len(vocabulary):
        number, word = next((n, w) for n, w in enumerate(vocabulary) if ids[w] != n)
        raise UserError(f"{where}: {word!r} of line {number + 1} is repeated; a token has one line")
    encoder = library.Tokenizer(
        library.models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    encoder.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    apply_settings(encoder, settings)
    encoder.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    encoder.post_processor = library.processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return Tokenizer(encoder, len(ids), ids["[PAD]"], ids["[SEP]"], True, settings)


def train_wordpiece(texts: Iterable[str], size: int) -> Tokenizer:
    """Train a WordPiece vocabulary of at most `size` tokens on texts; the result is deterministic.

    Raises:
        UserError: `size` is too small for the special tokens and a few characters.
    """
    if size < 32:
        raise UserError(f"data.vocabulary_size is {size}; it must be >= 32")
    library = load_library()
    blank = from_words(SPECIAL).encoder
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(blank.normalizer.normalize_str(text))
    del counts[" "]
    common = sorted(counts, key=lambda char: (-counts[char], char))
    alphabet = sorted(common[: min(_ALPHABET, (size - len(SPECIAL)) // 3)])
    # The library numbers the pieces "##x" in the varying order of a hash map, and breaks ties by
    # number. As special tokens they have the order of this list.
    split = blank.pre_tokenizer.pre_tokenize_str
    inner = [char for char in alphabet if len(split(f"a{char}")) == 1]  # punctuation is split off
    seeds = [*SPECIAL, *alphabet, *(f"##{char}" for char in inner)]
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=seeds,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    blank.train_from_iterator(texts, trainer)
    ids = blank.get_vocab()
    return from_words(sorted(ids, key=ids.__getitem__), "the trained vocabulary")


def from_file(path: str | Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json (or the folder that contains one): BPE, Unigram, ...

    Raises:
        UserError: the file is missing, or the library cannot read it.
    """
    file = _existing(path, "tokenizer.json", "data.tokenizer")
    try:
        encoder = load_library().Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{file} is not a tokenizer.json ({reason}); write one with Tokenizer.save"
        ) from error
    encoder.no_truncation()
    encoder.no_padding()
    ids, settings = encoder.get_vocab(), read_settings(file)
    apply_settings(encoder, settings)
    pad, end = (token_id(ids, settings, key) for key in SPECIAL_SETTINGS)
    size = max(ids.values(), default=-1) + 1
    return Tokenizer(encoder, size, pad or 0, end, False, settings)


def words(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the tokens in the order of their ids."""
    ids = tokenizer.encoder.get_vocab()
    return tuple(sorted(ids, key=ids.__getitem__))


def save(tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write vocab.txt (WordPiece) or tokenizer.json into a folder, and return the file.

    Settings that differ from the defaults are written to tokenizer_config.json.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    if tokenizer.settings:
        text = json.dumps(dict(tokenizer.settings), indent=2) + "\n"
        Path(folder, "tokenizer_config.json").write_text(text, encoding="utf-8")
    if tokenizer.plain:
        file = Path(folder, "vocab.txt")
        file.write_text("".join(f"{word}\n" for word in words(tokenizer)), encoding="utf-8")
        return file
    file = Path(folder, "tokenizer.json")
    tokenizer.encoder.save(str(file))
    return file


def encode(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], *, max_length: int) -> Encoded:
    """Encode texts (tuples of one) or pairs, with the tokenizer's special tokens.

    A text that is too long is truncated at its end, or where the settings say; in a pair the longer
    text first.
    """
    encoder, side = tokenizer.encoder, tokenizer.settings.get("truncation_side", "right")
    encoder.enable_truncation(max_length, strategy="longest_first", direction=side)
    ids, types, cut = [], [], []
    try:
        for start in range(0, len(texts), _CHUNK):
            part = [text[0] if text[1:] == () else text for text in texts[start : start + _CHUNK]]
            for encoding in encoder.encode_batch(part):
                ids.append(np.array(encoding.ids, np.int32))
                types.append(np.array(encoding.type_ids, np.int32))
                cut.append(bool(encoding.overflowing))
    finally:
        encoder.no_truncation()
    return _ragged(ids, types, cut)


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[Prompt], *, max_length: int) -> Encoded:
    """Encode prompts with the tokenizer's special tokens; `long` is truncated first."""
    ids, cut = [], []
    for start in range(0, len(prompts), _CHUNK):
        part = prompts[start : start + _CHUNK]
        encodings = tokenizer.encoder.encode_batch(["".join(prompt) for prompt in part])
        for prompt, encoding in zip(part, encodings, strict=True):
            all_ids = np.array(encoding.ids, np.int32)
            cut.append(len(all_ids) > max_length)
            if cut[-1]:
                all_ids = all_ids[_truncate(encoding, prompt, max_length, tokenizer.settings)]
            ids.append(all_ids)
    return _ragged(ids, [np.zeros_like(row) for row in ids], cut)


def _truncate(
    encoding: Any, prompt: Prompt, max_length: int, settings: Mapping[str, Any]
) -> np.ndarray:
    """Return the positions of the `max_length` tokens of a prompt that are used, ascending."""
    begin = np.array([offset[0] for offset in encoding.offsets])
    text = np.array(encoding.special_tokens_mask) == 0
    low, high = len(prompt.before), len(prompt.before) + len(prompt.long)
    inside = text & (begin >= low) & (begin < high)
    first = 1 if settings.get("truncation_side") == "left" else -1
    # The question follows the long part and is truncated last.
    order = np.concatenate([np.flatnonzero(inside)[::first], np.flatnonzero(text & ~inside)])
    return np.setdiff1d(np.arange(len(begin)), order[: len(begin) - max_length])


def encode_answers(
    tokenizer: Tokenizer, answers: Sequence[tuple[str, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Encode answers as ids and mask, int32 [examples, choices, longest], each ended by `end_id`.

    An answer is encoded as the continuation of "Answer:", with which every prompt ends.
    """
    texts = dict.fromkeys(text for row in answers for text in row)
    number = {text: row for row, text in enumerate(texts)}
    end = [] if tokenizer.end_id is None else [tokenizer.end_id]
    head = "Answer:"
    continued = [f"{head} {text}" for text in texts]
    encodings = tokenizer.encoder.encode_batch(continued, add_special_tokens=False)
    rows = [
        [id_ for id_, (_, stop) in zip(each.ids, each.offsets, strict=True) if stop > len(head)]
        + end
        for each in encodings
    ]
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), tokenizer.pad_id, np.int32)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = row
    mask = (np.arange(longest) < np.array([[len(row)] for row in rows])).astype(np.int32)
    chosen = np.array([[number[text] for text in row] for row in answers])
    return ids[chosen], mask[chosen]


def _ragged(ids: list[np.ndarray], types: list[np.ndarray], cut: list[bool]) -> Encoded:
    start = np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)])
    nothing = [np.zeros(0, np.int32)]
    return Encoded(
        np.concatenate(ids or nothing),
        np.concatenate(types or nothing),
        start.astype(np.int64),
        np.array(cut, bool),
    )


def _existing(path: str | Path, name: str, key: str) -> Path:
    file = Path(path).expanduser()
    file = file / name if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"{key}={path} does not exist; give a {name}, or the folder that holds one")
    return file


def load_library() -> Any:
    """Import the library `tokenizers`; raises UserError where it is missing."""
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("text needs the package tokenizers: pip install 'kdjax[text]'") from error
    return tokenizers
