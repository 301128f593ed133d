"""ROUGE-L of completions: what networks write behind the prompts of the test split."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax import models
from kdjax.data import LanguageSet
from kdjax.errors import UserError
from kdjax.evaluation.task import Scores
from kdjax.evaluation.text_samples import Writer, cut_text, writer_completer

# letters and digits; each sign of a script without spaces is a word
_SIGNS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_ROWS = 16  # prompts that are completed together


class Pair(NamedTuple):
    """The prompt and the completion of a document."""

    prompt: str
    reference: str


def check(dataset: LanguageSet, count: int) -> None:
    """Refuse a set without prompts, and a missing library.

    Raises:
      UserError: no test document has a prompt of less than half of a row; rouge-score is missing.
    """
    if not count:
        return
    if not prompt_pairs(dataset, 1):
        raise UserError(
            f"data.rouge_prompts is {count}, but no test document has a prompt (and a completion) "
            "of less than half of data.max_length tokens; set it to 0"
        )
    _load_scorer()


def prompt_pairs(dataset: LanguageSet, count: int) -> list[Pair]:
    """Return the first test documents with a prompt of less than half of a row."""
    decode = dataset.tokenizer.encoder.decode

    def pairs() -> Iterator[Pair]:
        for batch in dataset.source.evals["test"]():
            half = batch["input_ids"].shape[1] // 2
            for row in np.flatnonzero(batch["mask"]):
                for segment in range(1, int(batch["segment_ids"][row].max()) + 1):
                    text = cut_text(batch, int(row), segment)
                    if text.has_prompt and len(text.prompt) < half:  # behind the start of the text
                        prompt = decode(text.prompt.tolist(), skip_special_tokens=False)
                        yield Pair(prompt, decode(text.reference.tolist()))

    return list(itertools.islice(pairs(), count))


def rouge_l(dataset: LanguageSet, writers: Mapping[str, Sequence[Writer]], count: int) -> Scores:
    """Return the mean ROUGE-L of greedy completions, "<role>/rouge_l" -> [members].

    ROUGE-L is the F1 of the longest common subsequence of words, English ones stemmed, in [0, 1].
    In scripts without spaces each sign is a word. A completion ends at the end of a text, or where
    prompt and completion fill a row.

    Args:
      dataset: the texts.
      writers: by role, the networks of its members.
      count: the number of prompts, the first ones of the test split.

    Source: Lin 2004, by the package rouge-score, with stemming as MiniLLM has it.
    """
    pairs, scorer = prompt_pairs(dataset, count), _load_scorer()
    length = next(iter(dataset.source.evals["test"]()))["input_ids"].shape[1]
    rule = models.Sampling(length - length // 2, temperature=0.0)
    scores: Scores = {}
    for role, members in writers.items():
        complete = writer_completer(dataset, members[0], width=length // 2)
        table = np.empty((len(members), len(pairs)))
        for member, writer in enumerate(members):
            for start in range(0, len(pairs), _ROWS):
                rows = pairs[start : start + _ROWS]
                prompts = [row.prompt for row in rows] + [rows[-1].prompt] * (_ROWS - len(rows))
                texts = complete(writer.variables, prompts, rule)
                for number, (row, text) in enumerate(zip(rows, texts, strict=False), start):
                    table[member, number] = scorer.score(row.reference, text)["rougeL"].fmeasure
        scores[f"{role}/rouge_l"] = table.mean(axis=1)
    return scores


def _load_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer
    except ImportError as error:
        raise UserError(
            "data.rouge_prompts needs the package rouge-score: pip install 'kdjax[rouge]'"
        ) from error

    class Words:
        """rouge-score's words, which are those of a to z and 0 to 9, and those of other scripts."""

        latin = DefaultTokenizer(use_stemmer=True)

        def tokenize(self, text: str) -> list[str]:
            words = _WORD.findall(text.lower())
            return [x for word in words for x in (self.latin.tokenize(word) or [word])]

    return RougeScorer(["rougeL"], tokenizer=Words())
