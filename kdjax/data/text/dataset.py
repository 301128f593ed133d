"""GLUE and SuperGLUE as a `Source`: from a task's name to batches of tokens.

To add a task, write a line in `text_tasks`. How batches are padded and ordered is in
`text_batches`.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax.data.splits import Options, plan
from kdjax.data.text import tasks as text_tasks
from kdjax.data.text import tokenize
from kdjax.data.text.batches import Split, equal_answers, eval_batches, eval_order, train_batches
from kdjax.data.text.files import Example, read
from kdjax.data.text.tasks import Task, lookup
from kdjax.data.text.tokenize import Tokenizer
from kdjax.types import Source, Spec, UserError

__all__ = ["TextOptions", "TextSet", "load_text", "read_text"]

_MAX_SHAPES = 4  # each is a compilation of every step


class TextOptions(NamedTuple):
    """What `load_text` takes; see there."""

    batch_size: int
    eval_batch_size: int = 256
    path: str | None = None
    train_file: str | None = None
    form: str = "classify"
    vocabulary: str | None = None
    vocabulary_size: int = 8000
    tokenizer: str | None = None
    max_length: int = 128
    lengths: Sequence[int] | None = None
    window: int = 16
    validation: float | int = 0.1
    test: float | int | None = None
    split_seed: int = 0
    limit: int | None = None
    too_long: str = "truncate"


class TextSet(NamedTuple):
    """A source and what belongs to it.

    `tokenize.save(tokenizer, folder)` keeps the vocabulary with a run. `groups` by split: int32
    [examples] in the order of evaluation, equal for what is judged together (MultiRC's answers to
    one question); `truncated` by split: how many examples were too long.
    """

    source: Source
    tokenizer: Tokenizer
    groups: Mapping[str, np.ndarray]
    truncated: Mapping[str, int]


def load_text(
    task: str,
    *,
    path: str | None = None,
    train_file: str | None = None,
    form: str = "classify",
    vocabulary: str | None = None,
    vocabulary_size: int = 8000,
    tokenizer: str | None = None,
    max_length: int = 128,
    lengths: Sequence[int] | None = None,
    window: int = 16,
    batch_size: int,
    eval_batch_size: int = 256,
    validation: float | int = 0.1,
    test: float | int | None = None,
    split_seed: int = 0,
    limit: int | None = None,
    too_long: str = "truncate",
) -> Source:
    """Return a task of GLUE or SuperGLUE as a `Source`.

    "validation" is cut from the training file, stratified; "test" is the official development set
    and "test_mismatched" MNLI's second one. Training batches drop an epoch's remainder. Evaluation
    walks through each split from the shortest example to the longest: "id" is the row.

    Batches of form "classify": "input_ids", "attention_mask", "token_type_ids" int32 [batch,
    length]. Of form "choices": "input_ids", "attention_mask" [batch, length] of the prompt,
    "choice_ids", "choice_mask" int32 [batch, choices, longest answer]. Both: "label" int32 [batch]
    (float32 of a regression), "id" int32 and "mask" float32 [batch].

    Args:
        task: a name of `tasks.TASKS`, such as "glue/sst2".
        path: the task's folder, the folder of all tasks, or tfds' data_dir (the default).
        train_file: the file to train on, without its ending, where it is not "train"; the
            development file ("val") gives a test split cut from it.
        form: "classify" for encoders, "choices" for models that generate an answer.
        vocabulary: a vocab.txt, or a folder with one; without it WordPiece is trained on the texts
            of the training split.
        vocabulary_size: of a trained vocabulary.
        tokenizer: a tokenizer.json instead of WordPiece.
        max_length: in tokens, special ones included.
        lengths: that batches are padded to, at most four of them up to `max_length`, which always
            is one; None is a quarter, half, three quarters and all of it.
        window: training batches sorted by length together; 1 draws batches at random.
        batch_size: of training, over all devices.
        eval_batch_size: of evaluation, over all devices; the last batch is padded.
        validation: fraction or count of the training file (of passages for MultiRC).
        test: the same, where `train_file` is the development file; 0.25 without it.
        split_seed: of the splits.
        limit: so many training examples (passages), stratified.
        too_long: "truncate" warns with a count, "refuse" raises.

    Raises:
        UserError: one line naming the key or the file and line, and what would be right.
    """
    options = TextOptions(
        batch_size, eval_batch_size, path, train_file, form, vocabulary, vocabulary_size, tokenizer,
        max_length, lengths, window, validation, test, split_seed, limit, too_long,
    )  # fmt: skip
    return read_text(task, options).source


def read_text(name: str, options: TextOptions) -> TextSet:
    """Return what `load_text` does, with the tokenizer, the groups and the counts."""
    task = lookup(name)
    lengths = _lengths(options)
    _check(task, options)
    found = read(task, options.path, options.train_file)
    examples = _cut(task, found.train, found.where, options, "test" not in found.evals)
    examples |= found.evals
    if not 1 <= options.batch_size <= len(examples["train"]):
        raise UserError(
            f"batch_size is {options.batch_size}; the training split has "
            f"{len(examples['train'])} examples: give 1 to {len(examples['train'])}"
        )
    tokenizer = _tokenizer(_texts(task, examples["train"], options.form), options)
    splits = {s: _encode(task, tokenizer, rows, options) for s, rows in examples.items()}
    _check_lengths(splits, found.where, options)
    splits = equal_answers(splits, tokenizer.pad_id)
    source = Source(
        spec=_spec(task, splits["train"], tokenizer, options),
        size={split: len(rows) for split, rows in examples.items()},
        train=train_batches(
            splits["train"], lengths, tokenizer.pad_id, options.batch_size, options.window
        ),
        evals={
            split: eval_batches(rows, lengths, tokenizer.pad_id, options.eval_batch_size)
            for split, rows in splits.items()
        },
    )
    groups = {split: _groups(rows)[eval_order(splits[split])] for split, rows in examples.items()}
    truncated = {split: int(rows.text.cut.sum()) for split, rows in splits.items()}
    return TextSet(source, tokenizer, groups, truncated)


def _groups(examples: list[Example]) -> np.ndarray:
    pairs = [e.group for e in examples]
    return np.unique(pairs, axis=0, return_inverse=True)[1].astype(np.int32)


def _lengths(options: TextOptions) -> tuple[int, ...]:
    longest = options.max_length
    if longest < 8:
        raise UserError(f"data.max_length is {longest}; it must be >= 8")
    quarters = tuple(longest * part // 4 for part in (1, 2, 3))
    given = quarters if options.lengths is None else tuple(options.lengths)
    found = (*sorted({length for length in given if length < longest}), longest)
    if found[0] < 1 or len(found) > _MAX_SHAPES:
        raise UserError(
            f"data.lengths is {given}; give at most {_MAX_SHAPES} lengths >= 1, the last being "
            f"data.max_length = {longest}"
        )
    return found


def _check(task: Task, options: TextOptions) -> None:
    for key, value, known in (
        ("form", options.form, ("classify", "choices")),
        ("too_long", options.too_long, ("truncate", "refuse")),
    ):
        if value not in known:
            raise UserError(f"data.{key} is {value!r}; choose from {', '.join(known)}")
    if options.form == "choices" and not task.answers:
        raise UserError(f"data.form is 'choices' but {task.name} is a regression; use 'classify'")
    for key, least in (("window", 1), ("split_seed", 0)):
        if getattr(options, key) < least:
            raise UserError(f"data.{key} is {getattr(options, key)}; it must be >= {least}")
    if options.eval_batch_size < 1:
        raise UserError(f"eval_batch_size is {options.eval_batch_size}; it must be >= 1")
    if options.vocabulary is not None and options.tokenizer is not None:
        raise UserError("data.vocabulary and data.tokenizer are both set; give one of them")


def _cut(
    task: Task, examples: list[Example], where: str, options: TextOptions, needs_test: bool
) -> dict[str, list[Example]]:
    """Cut a training file into its splits, units whole."""
    _, first, unit = np.unique([e.unit for e in examples], return_index=True, return_inverse=True)
    label = np.zeros(len(first), int)
    if len(first) == len(examples) and task.bounds is None:
        label = np.array([e.label for e in examples], int)
    rows = plan(
        label,
        where,
        Options(1, 1, options.validation, options.test, options.split_seed, limit=options.limit),
        has_test=not needs_test,
        has_validation=False,
    )
    return {
        split: [examples[row] for row in np.flatnonzero(np.isin(unit, units))]
        for split, units in rows._asdict().items()
        if units is not None
    }


def _tokenizer(texts: list[str], options: TextOptions) -> Tokenizer:
    if options.tokenizer is not None:
        return tokenize.from_file(options.tokenizer)
    if options.vocabulary is not None:
        return tokenize.wordpiece(options.vocabulary)
    return tokenize.train_wordpiece(texts, options.vocabulary_size)


def _texts(task: Task, examples: list[Example], form: str) -> list[str]:
    """Return every text that will be encoded: what a vocabulary is trained on."""
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
    said = ", ".join(f"{cut} of {size} in {split}" for split, (cut, size) in counts.items() if cut)
    if said and options.too_long == "refuse":
        raise UserError(
            f"{where}: {said} are longer than data.max_length = {options.max_length} tokens; raise "
            "it or set data.too_long to truncate"
        )
    if said:
        warnings.warn(
            f"{where}: {said} are longer than {options.max_length} tokens and were truncated",
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
