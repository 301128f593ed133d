"""Texts that language models write: the same prompts for all networks, beside the references."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from kdjax import models
from kdjax.data import SECOND, LanguageSet, start_id
from kdjax.data.text.tokenize import Tokenizer
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Variables

_PROMPTS, _NEW_TOKENS = 3, 48  # of a report
_MOST_TOKENS = 64  # of a prompt; earlier ones are left out

Completer: TypeAlias = Callable[..., list[str]]  # of `completer`


class Writer(NamedTuple):
    """A network, its variables, and the `input` of a batch that it reads."""

    model: Model
    variables: Variables
    entry: str


def write_texts(
    dataset: LanguageSet, writers: Mapping[str, Writer]
) -> dict[str, list[dict[str, str]]]:
    """Continue a few prompts of the test split by the most probable tokens of each network.

    Args:
      dataset: the texts.
      writers: by role.

    Returns:
      role -> for each prompt "prompt", "reference" (the text behind it) and "text".
    """
    length = dataset.source.spec.shape[0]
    width = max(2, min(_MOST_TOKENS + 1, length // 2))  # with the token that begins a text
    rule = models.Sampling(max(1, min(_NEW_TOKENS, length - width)), temperature=0.0)
    prompts, references = zip(*_prompts(dataset, width - 1), strict=True)
    written = {
        role: writer_completer(dataset, writer, width)(writer.variables, prompts, rule)
        for role, writer in writers.items()
    }
    return {
        role: [
            {"prompt": prompt, "reference": reference, "text": text}
            for prompt, reference, text in zip(prompts, references, texts, strict=True)
        ]
        for role, texts in written.items()
    }


def _prompts(dataset: LanguageSet, most: int) -> Iterator[tuple[str, str]]:
    """Yield the ends of the prompts of the first test texts, or of half of each text."""
    decode = dataset.tokenizer.encoder.decode
    for text in cut_texts(dataset)[:_PROMPTS]:
        prompt, reference = text.prompt[-most:], text.reference[:_NEW_TOKENS]
        yield decode(prompt.tolist(), skip_special_tokens=False), decode(reference.tolist())


class CutText(NamedTuple):
    """The tokens of a text up to its completion, or its middle, without its start; and the rest."""

    prompt: np.ndarray
    reference: np.ndarray
    has_prompt: bool


def cut_texts(dataset: LanguageSet) -> list[CutText]:
    """Return the texts of the test rows, cut, in the order of the documents."""
    texts, rows = {}, iter(dataset.test_rows)
    for batch in dataset.source.evals["test"]():
        for row in np.flatnonzero(batch["mask"]):
            for segment, number in enumerate(next(rows), 1):
                texts[number] = cut_text(batch, int(row), segment)
    return [texts[number] for number in sorted(texts)]


def cut_text(batch: Batch, row: int, segment: int) -> CutText:
    """Return a text of a batch in two parts."""
    inside = batch["segment_ids"][row] == segment
    ids, label = (batch[name][row][inside] for name in ("input_ids", "label"))
    unlearned = int((label < 0).sum())
    cut = unlearned + 1 if unlearned else max(1, len(ids) // 2)
    return CutText(ids[1:cut], label[cut - 1 :], unlearned > 0)


def writer_completer(dataset: LanguageSet, writer: Writer, width: int | None = None) -> Completer:
    """Return the completer of a network that reads the tokens of one of the tokenizers."""
    seen = dataset.second if writer.entry == SECOND and dataset.second else dataset
    model = writer.model if seen is dataset else _reads(writer.model, writer.entry)
    return completer(model, seen.tokenizer, width)


def completer(model: Model, tokenizer: Any, width: int | None = None) -> Completer:
    """Return a function that completes prompts, and is compiled once for each rule and shape.

    A prompt is read behind the token that begins a text: what the tokenizer adds, else the end of a
    text. The completion ends before the end of a text.

    Args:
      model: a decoder.
      tokenizer: a `Tokenizer` of `kdjax.data`.
      width: the tokens of a prompt; shorter ones are padded, of longer ones the last are read.

    Returns:
      (variables, prompts, sampling, seed=0) -> texts; `sampling` without `eos_id`, which is the
      tokenizer's. It raises a UserError for an empty prompt of a tokenizer without a token that
      begins a text, and the errors of `generate`.
    """
    first = start_id(tokenizer)

    @functools.partial(jax.jit, static_argnames="rule")
    def run(variables: Variables, batch: Batch, key: Array, rule: models.Sampling) -> Any:
        return models.generate(model, variables, batch, key, rule)

    def complete(
        variables: Variables, prompts: Sequence[str], sampling: models.Sampling, seed: int = 0
    ) -> list[str]:
        encoded = tokenizer.encoder.encode_batch(list(prompts), add_special_tokens=False)
        rows = [[first] * (first is not None) + each.ids for each in encoded]
        if not all(rows):
            raise UserError("a prompt is empty, and the tokenizer has no token that begins a text")
        rows = [row[-width:] for row in rows] if width else rows
        shape = (len(rows), width or max(map(len, rows)))
        batch = {name: np.zeros(shape, np.int32) for name in ("input_ids", "attention_mask")}
        for number, row in enumerate(rows):
            batch["input_ids"][number, : len(row)] = row
            batch["attention_mask"][number, : len(row)] = 1
        rule = sampling._replace(eos_id=tokenizer.end_id)
        new = jax.device_get(run(variables, batch, jax.random.key(seed), rule))
        texts = (ids[mask > 0].tolist() for ids, mask in zip(new.ids, new.mask, strict=True))
        return [_continued(tokenizer, row, text) for row, text in zip(rows, texts, strict=True)]

    return complete


def _continued(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
    """Decode new tokens behind their prompt: some decoders drop the space before a first token."""
    decode = functools.partial(tokenizer.encoder.decode, skip_special_tokens=True)
    text, prefix = decode(prompt + new), decode(prompt)
    return text[len(prefix) :] if text.startswith(prefix) else decode(new)


def _reads(model: Model, entry: str) -> Model:
    """Return a network of the second tokenizer that reads its tokens under the usual names."""

    def apply(variables: Variables, batch: Batch, **options: Any) -> Any:
        renamed = {f"{entry}_{name}": x for name, x in batch.items()}
        return model.apply(variables, renamed, **options)

    return Model(model.init, apply)
