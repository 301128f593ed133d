"""ROUGE-L of completions: what networks write behind the prompts of the test split."""

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax import models
from kdjax.data import LanguageSet
from kdjax.errors import UserError
from kdjax.evaluation.task import Scores
from kdjax.evaluation.text_samples import Writer, cut_texts, writer_completer

# signs of scripts without spaces
_SIGN = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
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
    decode, half = dataset.tokenizer.encoder.decode, dataset.source.spec.shape[0] // 2
    texts = (
        text
        for text in cut_texts(dataset)
        if text.has_prompt and len(text.prompt) < half  # behind the token that begins a text
    )
    return [
        Pair(
            decode(text.prompt.tolist(), skip_special_tokens=False), decode(text.reference.tolist())
        )
        for text in itertools.islice(texts, count)
    ]


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
    length = dataset.source.spec.shape[0]
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


def score_texts(dataset: LanguageSet, writers: Mapping[str, Sequence[Writer]]) -> Scores:
    """Return `rouge_l` of as many prompts as `data.rouge_prompts` asks for; {} of none."""
    count = dataset.rouge_prompts
    return rouge_l(dataset, writers, count) if count else {}


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: letters, marks and digits of any script.

    In scripts without spaces each sign is a word.

    >>> words("L'élan, हिना!")
    ['l', 'élan', 'हिना']
    """
    all_words, word = [], ""
    for sign in unicodedata.normalize("NFC", text.lower()) + " ":
        if unicodedata.category(sign)[0] in "LMN" and not _SIGN.match(sign):
            word += sign
            continue
        all_words += [word] if word else []
        all_words += [sign] if _SIGN.match(sign) else []
        word = ""
    return all_words


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
            stem = self.latin.tokenize
            return [x for word in words(text) for x in (stem(word) if word.isascii() else [word])]

    return RougeScorer(["rougeL"], tokenizer=Words())
