"""Texts for a language model as a `Source`: rows of tokens, packed or padded to one length."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax.data.digest import digest
from kdjax.data.images.in_memory import pad_batch
from kdjax.data.language.documents import read_documents
from kdjax.data.language.packing import PackedRows, best_fit, fill_rows
from kdjax.data.language.pieces import CutOptions, Pieces, cut_documents
from kdjax.data.language.tokenizers import train_byte_level, warn_if_lossy
from kdjax.data.options import BatchOptions, LanguageOptions, SplitOptions
from kdjax.data.splits import batch_rows, check_batch_sizes
from kdjax.data.text import tokenize
from kdjax.data.text.tokenize import Tokenizer
from kdjax.data.text.tokenizer_folder import read_tokenizer
from kdjax.errors import UserError
from kdjax.types import EvalBatches, Source, Spec, TrainBatches

TASK = "language_model"
SECOND = "second"  # prefix of the entries of a batch in the second tokenizer's tokens
_ENTRIES = ("input_ids", "attention_mask", "segment_ids", "label")


class LanguageSet(NamedTuple):
    """A source with its tokenizer.

    `is_trained`: the tokenizer was trained on these texts. `num_bytes`: bytes of UTF-8 of the
    predicted texts, by split. `summary`: a line for each split with its documents, tokens, padding
    and truncation. `test_rows`: the numbers of the pieces of text in each row of the test split.
    `rouge_prompts`: of the options. `second`: the same texts for networks that read the second
    tokenizer's tokens.
    """

    source: Source
    tokenizer: Tokenizer
    is_trained: bool
    num_bytes: Mapping[str, int]
    summary: tuple[str, ...]
    test_rows: Sequence[Sequence[int]]
    rouge_prompts: int = 0
    second: "LanguageSet | None" = None


def read_language(
    options: LanguageOptions, batching: BatchOptions, splitting: SplitOptions
) -> LanguageSet:
    """Return documents as a `Source` of rows of `max_length` tokens.

    Batches: "input_ids", "attention_mask", "segment_ids" (from 1, 0 of padding) and "label", the
    token after each (-1: no loss), int32 [batch, length]; "id" int32 and "mask" float32 [batch].
    With a second tokenizer the same pieces of text in its tokens, "second_input_ids", ....

    Args:
        options: the options of language models.
        batching: `on_device` and `workers` have no effect.
        splitting: sizes in documents.

    Raises:
        UserError: one line with the key or the file and row, and what would be right.
    """
    documents = read_documents(options.path, splitting)
    tokenizers = _tokenizers([d.text for d in documents.by_split["train"]], options)
    if len(tokenizers) == 2 and options.packing == "pack":
        raise UserError(
            "data.packing is pack, but two tokenizers need rows of the same text; set it to pad"
        )
    cut = CutOptions(options.max_length, options.too_long == "refuse")
    pieces = {
        split: cut_documents(each, tokenizers, cut) for split, each in documents.by_split.items()
    }
    placed = {split: _placed(each, options) for split, each in pieces.items()}
    rows = {
        split: [
            fill_rows(part, placed[split], options.max_length, tokenizer.pad_id)
            for part, tokenizer in zip(zip(*each.pieces, strict=True), tokenizers, strict=True)
        ]
        for split, each in pieces.items()
    }
    check_batch_sizes(batching, len(rows["train"][0].input_ids))
    arrays = {split: _arrays(each) for split, each in rows.items()}
    source = Source(
        spec=_spec(tokenizers[0], arrays["train"]),
        size={split: len(each["label"]) for split, each in arrays.items()},
        train=_train_batches(arrays["train"], batching.batch_size),
        evals={
            split: _eval_batches(each, batching.eval_batch_size) for split, each in arrays.items()
        },
        digest=digest({f"{split} {k}": x for split, a in arrays.items() for k, x in a.items()}),
    )
    num_bytes = {split: each.num_bytes for split, each in pieces.items()}
    summary = tuple(
        _summary(split, len(documents.by_split[split]), pieces[split], rows[split][0])
        for split in pieces
    )
    known = (options.tokenizer, options.second_tokenizer)
    sets = [
        LanguageSet(source._replace(spec=_spec(tokenizer, arrays["train"])), tokenizer,
                    path is None, num_bytes, summary, placed["test"], options.rouge_prompts)
        for tokenizer, path in zip(tokenizers, known, strict=False)
    ]  # fmt: skip
    return sets[0]._replace(second=sets[1] if len(sets) == 2 else None)


def _tokenizers(texts: list[str], options: LanguageOptions) -> list[Tokenizer]:
    """Return the tokenizer, and the second one if it is asked for."""
    second = (options.second_tokenizer, options.second_bpe_size)
    if None not in second:
        raise UserError("data.second_tokenizer and data.second_bpe_size are both set; remove one")
    settings: list[tuple[str, str | None, int | None]] = [
        ("data.tokenizer", options.tokenizer, options.bpe_size)
    ]
    if second != (None, None):
        settings.append(("data.second_tokenizer", *second))
    tokenizers = []
    for key, path, size in settings:
        if path is None:
            tokenizers.append(train_byte_level(texts, size or 0))
        else:
            tokenizers.append(read_tokenizer(path, key))
            warn_if_lossy(tokenizers[-1], texts, key)
    return tokenizers


def _placed(pieces: Pieces, options: LanguageOptions) -> list[list[int]]:
    """Return the numbers of the pieces of each row."""
    if options.packing == "pack":
        return best_fit([len(first.ids) for first, *_ in pieces.pieces], options.max_length)
    return [[number] for number in range(len(pieces.pieces))]


def _arrays(rows: list[PackedRows]) -> dict[str, np.ndarray]:
    """Return the entries of batches for all rows of a split."""
    arrays = {}
    for prefix, each in zip(("", f"{SECOND}_"), rows, strict=False):
        mask = (each.segment_ids > 0).astype(np.int32)
        values = (each.input_ids, mask, each.segment_ids, each.label)
        arrays |= {f"{prefix}{name}": x for name, x in zip(_ENTRIES, values, strict=True)}
    return arrays


def _train_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> TrainBatches:
    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        while True:
            rows = batch_rows(len(arrays["label"]), batch_size, seed, step)
            yield pad_batch({**{k: x[rows] for k, x in arrays.items()}, "id": rows}, batch_size)
            step += 1

    return batches


def _eval_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> EvalBatches:
    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(arrays["label"]), batch_size):
            part = {name: x[start : start + batch_size] for name, x in arrays.items()}
            rows = np.arange(start, start + len(part["label"]), dtype=np.int32)
            yield pad_batch({**part, "id": rows}, batch_size)

    return batches


def _summary(split: str, num_documents: int, pieces: Pieces, rows: PackedRows) -> str:
    tokens, padding = int((rows.label >= 0).sum()), float((rows.segment_ids == 0).mean())
    return (
        f"{split}: {num_documents:,} documents, {pieces.num_bytes:,} bytes, {tokens:,} predicted "
        f"tokens in {len(rows.label):,} rows of {rows.label.shape[1]}, {100 * padding:.1f} % "
        f"padding, {pieces.truncated:,} documents truncated"
    )


def _spec(tokenizer: Tokenizer, arrays: Mapping[str, np.ndarray]) -> Spec:
    length = arrays["label"].shape[1]
    return Spec(
        shape=(length,),
        num_classes=tokenizer.vocab_size,
        class_names=(),
        mean=(0.0,),
        std=(1.0,),
        scale=1.0,
        inputs=dict.fromkeys(arrays, ((length,), "int32")),
        vocab_size=tokenizer.vocab_size,
        vocabulary=hashlib.sha256("\n".join(tokenize.words(tokenizer)).encode()).hexdigest(),
        task=TASK,
    )
