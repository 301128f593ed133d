"""Raw texts as batches of tokens, by the tokenizer beside a network's weights."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.text import tasks, tokenize
from kdjax.data.text.batches import Padding, Split, eval_batches
from kdjax.data.text.tokenize import Tokenizer
from kdjax.errors import UserError

Text = str | Sequence[str] | Mapping[str, str]  # a text, a pair, or the fields of the task


class TextEncoder(NamedTuple):
    """The tokenizer of a network, its task and its greatest length in tokens.

    `choices`: the network ranks answers, so that a text is the fields of its task.
    """

    tokenizer: Tokenizer
    task: tasks.Task
    max_length: int
    choices: bool

    def batches(self, texts: Sequence[Text], batch_size: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield padded batches; "id" is the row of a text, "mask" 0 of padding."""
        rows = [self._row(number, text) for number, text in enumerate(texts)]
        nothing = np.zeros(len(rows), np.int32)
        if self.choices:
            prompts = [tasks.prompt(self.task, row) for row in rows]
            encoded = tokenize.encode_prompts(self.tokenizer, prompts, max_length=self.max_length)
            answers = [tasks.answers(self.task, row) for row in rows]
            split = Split(encoded, nothing, tokenize.encode_answers(self.tokenizer, answers))
        else:
            sides = [self._sides(row) for row in rows]
            encoded = tokenize.encode(self.tokenizer, sides, max_length=self.max_length)
            split = Split(encoded, nothing, None)
        quarters = {max(1, self.max_length * part // 4) for part in (1, 2, 3, 4)}
        padding = Padding(tuple(sorted(quarters)), self.tokenizer.pad_id)
        return eval_batches(split, padding, batch_size)()

    def _row(self, number: int, text: Any) -> Any:
        if isinstance(text, str):
            text = (text,)
        names = self._names()
        if isinstance(text, Mapping):
            if missing := [name for name in names if name not in text]:
                raise UserError(f"text {number} lacks {', '.join(missing)}, of {self.task.name}")
            return {name: _text(number, text[name]) for name in names}
        if self.choices:
            raise UserError(f"text {number}: give a dict of {', '.join(names)}, of this task")
        count = 2 if self.task.second else 1
        if len(text) != count:
            kind = "a pair of texts" if count == 2 else "one text"
            raise UserError(f"text {number} has {len(text)} parts; {self.task.name} takes {kind}")
        return tuple(_text(number, part) for part in text)

    def _names(self) -> tuple[str, ...]:
        if not self.choices:
            return tasks.fields(self.task.first, self.task.second)
        return tasks.fields(self.task.prompt, *self.task.answers)

    def _sides(self, row: Any) -> tuple[str, ...]:
        return tasks.sides(self.task, row) if isinstance(row, Mapping) else row


def _text(number: int, text: Any) -> str:
    """Return a text without spaces at its ends, as in training."""
    if not isinstance(text, str):
        raise UserError(f"text {number} is or contains {text!r}; give strings")
    return text.strip()


def open_encoder(folder: str | Path, task: str, *, max_length: int, choices: bool) -> TextEncoder:
    """Read the tokenizer of an export's folder.

    Raises:
        UserError: it holds none.
    """
    if Path(folder, "vocab.txt").is_file():
        tokenizer = tokenize.wordpiece(folder)
    elif Path(folder, "tokenizer.json").is_file():
        tokenizer = tokenize.from_file(folder)
    else:
        raise UserError(f"{folder} holds no vocab.txt and no tokenizer.json; export it again")
    return TextEncoder(tokenizer, tasks.lookup(task), max_length, choices)
