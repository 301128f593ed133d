"""Documents as tokens, cut into pieces of at most a length; with two tokenizers at equal places."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.language.documents import Document
from kdjax.data.language.packing import Piece
from kdjax.data.language.tokenizers import start_id
from kdjax.data.text.tokenize import Tokenizer
from kdjax.errors import UserError

_CHUNK = 1024  # documents encoded at a time: bounds memory without changing the result


class CutOptions(NamedTuple):
    """The greatest length of a piece, and whether a completion that is too long is an error."""

    length: int
    refuse: bool


class Pieces(NamedTuple):
    """The pieces of a split's documents.

    `pieces` holds a tuple for each piece, with one entry for each tokenizer. `num_bytes` counts the
    bytes of UTF-8 of the predicted texts, `truncated` the documents of which a part is left out.
    """

    pieces: list[tuple[Piece, ...]]
    num_bytes: int
    truncated: int


class _Encoded(NamedTuple):
    """Tokens of a prompt and of a text, the end included, and the characters before their ends."""

    prompt: np.ndarray  # int32 [tokens]
    text: np.ndarray  # int32 [tokens]
    ends: np.ndarray  # int64 [tokens]; the end token adds none
    can_cut: np.ndarray  # bool [tokens]; False inside of a character
    start: int


def cut_documents(
    documents: Sequence[Document], tokenizers: Sequence[Tokenizer], options: CutOptions
) -> Pieces:
    """Encode documents and cut them.

    A plain text is cut into pieces as long as possible, so that every token is predicted once. A
    prompt with its completion is one piece, whose completion is truncated at its end. Before the
    first token stands `start_id`, after the last the tokenizer's end.

    Raises:
        UserError: a document without tokens, a prompt that leaves no room for its completion; a
            tokenizer without a token for the end of a text; a truncated document, if refused.
    """
    pieces, num_bytes, truncated = [], 0, 0
    for number in range(0, len(documents), _CHUNK):
        part = documents[number : number + _CHUNK]
        encoded = zip(*(_encode(part, tokenizer) for tokenizer in tokenizers), strict=True)
        for document, each in zip(part, encoded, strict=True):
            parts = list(_parts(document, each, options.length))
            pieces += [tuple(map(_piece, each, first, last)) for first, last in parts]
            characters = [_characters(each[0], document, *part) for part in parts]
            num_bytes += sum(len(text.encode("utf-8")) for text in characters)
            ends = tuple(len(tokens.text) for tokens in each)  # with the token that ends the text
            is_cut = sum(map(len, characters)) < len(document.text) or parts[-1][1] != ends
            truncated += is_cut
            if options.refuse and is_cut:
                raise UserError(
                    f"{document.where} is longer than data.max_length = {options.length} tokens; "
                    "raise it or set data.too_long to truncate"
                )
    return Pieces(pieces, num_bytes, truncated)


def _encode(documents: Sequence[Document], tokenizer: Tokenizer) -> Iterator[_Encoded]:
    start, end = start_id(tokenizer), tokenizer.end_id
    if start is None:
        raise UserError(
            "the tokenizer has no token that ends a text; name one as eos_token in its "
            "tokenizer_config.json"
        )
    encode, last = tokenizer.encoder.encode_batch, [] if end is None else [end]
    prompts = encode([document.prompt or "" for document in documents], add_special_tokens=False)
    texts = encode([document.text for document in documents], add_special_tokens=False)
    for document, prompt, text in zip(documents, prompts, texts, strict=True):
        if not text.ids:
            raise UserError(f"{document.where} has no token; remove it")
        yield _Encoded(
            np.array(prompt.ids, np.int32),
            np.array([*text.ids, *last], np.int32),
            *_ends(text, len(document.text), len(last)),
            start,
        )


def _ends(text: Any, size: int, num_last: int) -> tuple[np.ndarray, np.ndarray]:
    begin, end = np.array(text.offsets, np.int64).T
    can_cut = np.append(begin[1:] >= end[:-1], np.ones(1 + num_last, bool))
    return np.append(end[:-1], np.full(1 + num_last, size)), can_cut


def _parts(
    document: Document, encoded: Sequence[_Encoded], length: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the first token of each piece and the token after its last one, by tokenizer."""
    cuts = _common_cuts(encoded)
    if document.prompt is not None:
        room = [length - len(each.prompt) for each in encoded]
        last = cuts[np.all(cuts <= room, axis=1)][-1:]
        if not last.size or not last.all():
            tokens = max(len(each.prompt) for each in encoded)
            raise UserError(
                f"{document.where}: the prompt has {tokens} tokens, but data.max_length is "
                f"{length}, with the completion; raise it or remove the row"
            )
        yield (0,) * len(encoded), tuple(last[0].tolist())
        return
    at = 0
    while at < len(cuts) - 1:
        limits = cuts[at] + length
        reach = [np.searchsorted(cuts[:, t], x, side="right") for t, x in enumerate(limits)]
        after = int(min(reach)) - 1
        if after > at:
            yield tuple(cuts[at].tolist()), tuple(cuts[after].tolist())
        at = max(after, at + 1)  # a part without a cut that fits is left out


def _common_cuts(encoded: Sequence[_Encoded]) -> np.ndarray:
    """Return where all tokenizations may be cut, as numbers of tokens [cuts, tokenizers]."""
    if len(encoded) == 1:  # also inside of a character
        return np.arange(len(encoded[0].text) + 1)[:, None]
    places = [
        {int(end): number for number, end in enumerate(each.ends, 1) if each.can_cut[number - 1]}
        for each in encoded
    ]
    common = sorted(set.intersection(*map(set, places)))
    return np.array([[0] * len(encoded)] + [[place[end] for place in places] for end in common])


def _piece(encoded: _Encoded, first: int, last: int) -> Piece:
    prompt = encoded.prompt
    tokens = np.concatenate([[encoded.start], prompt, encoded.text]).astype(np.int32)
    begin = 0 if first == 0 else len(prompt) + first
    ids, label = tokens[begin : len(prompt) + last], tokens[begin + 1 : len(prompt) + last + 1]
    is_prompt = begin + np.arange(len(label)) < len(prompt)
    return Piece(ids, np.where(is_prompt, -1, label).astype(np.int32))


def _characters(
    encoded: _Encoded, document: Document, first: tuple[int, ...], last: tuple[int, ...]
) -> str:
    begin = encoded.ends[first[0] - 1] if first[0] else 0
    return document.text[begin : encoded.ends[last[0] - 1]]
