"""Texts as a `Source`: from a task of GLUE or SuperGLUE, or a table, to batches of tokens.

To add a task, write a line in `text_tasks`. `text_batches` pads and orders batches.
"""

import hashlib
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kdjax.data.digest import digest
from kdjax.data.options import BatchOptions, SplitOptions, TextOptions
from kdjax.data.splits import check_batch_sizes, plan
from kdjax.data.table import is_table
from kdjax.data.text import tasks as text_tasks
from kdjax.data.text import tokenize
from kdjax.data.text.batches import (
    Padding,
    Split,
    equal_answers,
    eval_batches,
    eval_order,
    train_batches,
)
from kdjax.data.text.files import Example, TextSplits, read
from kdjax.data.text.table import read_text_table
from kdjax.data.text.tasks import Task, lookup
from kdjax.data.text.tokenize import Tokenizer
from kdjax.data.text.tokenizer_folder import read_tokenizer
from kdjax.errors import UserError
from kdjax.types import Source, Spec

TABLE_TASK = text_tasks.SINGLE.name
_MAX_SHAPES = 4  # every step is compiled for each


class TextSet(NamedTuple):
    """A source with its tokenizer.

    `tokenize.save(tokenizer, folder)` stores the vocabulary with a run. `groups`: split -> int32
    [examples] in the order of evaluation, equal for examples that are scored together (MultiRC's
    answers to one question).
    """

    source: Source
    tokenizer: Tokenizer
    groups: Mapping[str, np.ndarray]


def read_text(options: TextOptions, batching: BatchOptions, splitting: SplitOptions) -> TextSet:
    """Return a task of GLUE or SuperGLUE, or a table, as a `Source` with tokenizer and groups.

    Of a task, "validation" is a stratified part of the training file; "test" is the official
    development set and "test_mismatched" MNLI's second one. A table is read if `task` is "text",
    or "" with a table's file or columns. Training batches drop an epoch's remainder. Evaluation
    runs from the shortest example to the longest; "id" is the row.

    Batches of form "classify": "input_ids", "attention_mask", "token_type_ids" int32 [batch,
    length]. Of form "choices": "input_ids", "attention_mask" [batch, length] of the prompt,
    "choice_ids", "choice_mask" int32 [batch, choices, longest answer]. Both: "label" int32 [batch]
    (float32 of a regression), "id" int32 and "mask" float32 [batch].

    Args:
        options: the options of text.
        batching: `on_device` and `workers` have no effect.
        splitting: MultiRC's shares and counts are of passages. `test` is allowed only if
            `train_file` is the development file, which is then split.

    Raises:
        UserError: one line with the key or the file and line, and what would be right.
    """
    lengths = _lengths(options)
    task, stored = _read(options)
    examples = {**_cut(task, stored, splitting), **stored.evals}
    check_batch_sizes(batching, len(examples["train"]))
    tokenizer = _tokenizer(_texts(task, examples["train"], options.form), options)
    splits = {s: _encode(task, tokenizer, rows, options) for s, rows in examples.items()}
    _check_lengths(splits, stored.where, options)
    splits = equal_answers(splits, tokenizer.pad_id)
    padding = Padding(lengths, tokenizer.pad_id)
    source = Source(
        spec=_spec(task, splits["train"], tokenizer, options),
        size={split: len(rows) for split, rows in examples.items()},
        train=train_batches(splits["train"], padding, batching.batch_size, options.window),
        evals={
            split: eval_batches(rows, padding, batching.eval_batch_size)
            for split, rows in splits.items()
        },
        digest=_digest(splits),
    )
    groups = {split: _groups(rows)[eval_order(splits[split])] for split, rows in examples.items()}
    return TextSet(source, tokenizer, groups)


def _digest(splits: Mapping[str, Split]) -> dict[str, str]:
    parts = {}
    for split, rows in splits.items():
        parts |= {f"{split} tokens": rows.text.ids, f"{split} lengths": np.diff(rows.text.start)}
        parts |= {f"{split} labels": rows.label}
        parts |= {} if rows.choices is None else {f"{split} answers": rows.choices[0]}
    return digest(parts)


def _groups(examples: list[Example]) -> np.ndarray:
    pairs = [e.group for e in examples]
    return np.unique(pairs, axis=0, return_inverse=True)[1].astype(np.int32)


def _lengths(options: TextOptions) -> tuple[int, ...]:
    longest = options.max_length
    if longest < 8:
        raise UserError(f"data.max_length is {longest}; it must be >= 8")
    quarters = tuple(longest * part // 4 for part in (1, 2, 3))
    shorter = quarters if options.lengths is None else tuple(options.lengths)
    lengths = tuple(sorted({*shorter, longest}))
    if lengths[0] < 1 or lengths[-1] > longest or len(lengths) > _MAX_SHAPES:
        raise UserError(
            f"data.lengths is {shorter}; give at most {_MAX_SHAPES} lengths >= 1, the last being "
            f"data.max_length = {longest}"
        )
    return lengths


def _check(task: Task, options: TextOptions) -> None:
    for key, value, known in (
        ("form", options.form, ("classify", "choices")),
        ("too_long", options.too_long, ("truncate", "refuse")),
    ):
        if value not in known:
            raise UserError(f"data.{key} is {value!r}; choose from {', '.join(known)}")
    if options.form == "choices" and not task.answers:
        kind = "is a regression" if task.bounds else "has no answers"
        raise UserError(f"data.form is 'choices' but {task.name} {kind}; use 'classify'")
    if options.window < 1:
        raise UserError(f"data.window is {options.window}; it must be >= 1")
    if options.vocabulary is not None and options.tokenizer is not None:
        raise UserError("data.vocabulary and data.tokenizer are both set; give one of them")


def _read(options: TextOptions) -> tuple[Task, TextSplits]:
    if options.task == TABLE_TASK or (not options.task and is_table(options.path, options.columns)):
        if options.train_file is not None:
            raise UserError(
                f"data.train_file is {options.train_file!r}, but a table's files have the names of "
                "their splits; leave it out"
            )
        _check(text_tasks.SINGLE, options)
        return read_text_table(options.path, options.columns)
    task = lookup(options.task)
    _check(task, options)
    return task, read(task, options.path, options.train_file)


def _cut(task: Task, stored: TextSplits, splitting: SplitOptions) -> dict[str, list[Example]]:
    """Divide a training file into splits; examples of a unit stay together."""
    examples = stored.train
    _, first, unit = np.unique([e.unit for e in examples], return_index=True, return_inverse=True)
    label = np.zeros(len(first), int)
    if len(first) == len(examples) and task.bounds is None:
        label = np.array([e.label for e in examples], int)
    has_test, has_validation = (split in stored.evals for split in ("test", "validation"))
    rows = plan(label, stored.where, splitting, has_test=has_test, has_validation=has_validation)
    return {
        split: [examples[row] for row in np.flatnonzero(np.isin(unit, units))]
        for split, units in rows._asdict().items()
        if units is not None
    }


def _tokenizer(texts: list[str], options: TextOptions) -> Tokenizer:
    for key in ("tokenizer", "vocabulary"):
        if (path := getattr(options, key)) is not None:
            return read_tokenizer(path, f"data.{key}")
    return tokenize.train_wordpiece(texts, options.vocabulary_size)


def _texts(task: Task, examples: list[Example], form: str) -> list[str]:
    """Return every text that is encoded, to train a vocabulary on them."""
    if form == "choices":
        answers = (text for e in examples for text in text_tasks.answers(task, e.fields))
        return ["".join(text_tasks.prompt(task, e.fields)) for e in examples] + [*answers]
    return [text for e in examples for text in text_tasks.sides(task, e.fields)]


def _encode(
    task: Task, tokenizer: Tokenizer, examples: list[Example], options: TextOptions
) -> Split:
    kind = np.int32 if task.bounds is None else np.float32
    label = np.array([e.label for e in examples], kind)
    if options.form == "choices":
        prompts = [text_tasks.prompt(task, e.fields) for e in examples]
        text = tokenize.encode_prompts(tokenizer, prompts, max_length=options.max_length)
        answers = [text_tasks.answers(task, e.fields) for e in examples]
        return Split(text, label, tokenize.encode_answers(tokenizer, answers))
    texts = [text_tasks.sides(task, e.fields) for e in examples]
    return Split(tokenize.encode(tokenizer, texts, max_length=options.max_length), label, None)


def _check_lengths(splits: Mapping[str, Split], where: str, options: TextOptions) -> None:
    for split, rows in splits.items():
        empty = np.flatnonzero(np.diff(rows.text.start) == 0)
        if len(empty):
            raise UserError(f"{where}: example {empty[0]} of {split} has no tokens; drop it")
    counts = {split: (int(rows.text.cut.sum()), len(rows.label)) for split, rows in splits.items()}
    share = ", ".join(f"{cut} of {size} in {split}" for split, (cut, size) in counts.items() if cut)
    if share and options.too_long == "refuse":
        raise UserError(
            f"{where}: {share} are longer than data.max_length = {options.max_length} tokens; "
            "raise it or set data.too_long to truncate"
        )
    if share:
        warnings.warn(
            f"{where}: {share} are longer than {options.max_length} tokens and were truncated",
            stacklevel=3,
        )


def _spec(task: Task, train: Split, tokenizer: Tokenizer, options: TextOptions) -> Spec:
    names = ["input_ids", "attention_mask"]
    if train.choices is None:
        names.append("token_type_ids")
    inputs = dict.fromkeys(names, ((options.max_length,), "int32"))
    if train.choices is not None:
        shape = train.choices[0].shape[1:]
        inputs |= {"choice_ids": (shape, "int32"), "choice_mask": (shape, "int32")}
    return Spec(
        shape=(options.max_length,),
        num_classes=len(task.class_names),
        class_names=task.class_names,
        mean=(0.0,),
        std=(1.0,),
        scale=1.0,
        inputs=inputs,
        vocab_size=tokenizer.vocab_size,
        vocabulary=hashlib.sha256("\n".join(tokenize.words(tokenizer)).encode()).hexdigest(),
        task=task.name,
    )
