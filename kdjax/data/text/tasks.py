"""Tasks of GLUE and SuperGLUE as one table: fields, labels, metrics, templates.

All but the diagnostic sets AX and ReCoRD, whose answers are spans.

Every template is a `str.format` string over the fields of an example. Names, fields and the order
of the classes are those of tfds. Sources: GLUE, arXiv 1804.07461; SuperGLUE, arXiv 1905.00537; the
prompts are from kdjax.
"""

import re
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kdjax.errors import UserError, did_you_mean

Row = Mapping[str, Any]  # an example as stored in a file


class Prompt(NamedTuple):
    """A text in three parts; if it is too long, `long` is truncated first, from its end."""

    before: str
    long: str
    after: str


def _unchanged(row: Row) -> Iterable[Row]:
    return (row,)


class Task(NamedTuple):
    """A task: its texts, answers, classes, metrics and files.

    `class_names` are in the order of the label; a regression has `bounds` and no answers. The first
    of `metrics` is the one in the benchmark's tables.
    """

    name: str
    folder: str  # as GLUE and SuperGLUE name it
    first: str  # template of the first text of an encoder
    second: str  # template of the second one; "" for single sentences
    prompt: str  # template of the text before the answer, for generative models
    long: str  # the field of the prompt that is truncated first
    answers: tuple[str, ...]  # one for each class
    class_names: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()  # spelling of the classes in files; (): `class_names`
    label: str = "label"
    columns: Mapping[str, str] = {}  # field -> its name in files, if different
    header: tuple[str, ...] = ()  # columns of a file without a header
    dev: Mapping[str, tuple[str, str]] = {}  # split -> (file, tfds split); {}: the usual one
    bounds: tuple[float, float] | None = None
    unfold: Callable[[Row], Iterable[Row]] = _unchanged  # a stored row -> examples
    tfds: str = ""  # "": `name`


def _multirc(row: Row) -> Iterable[Row]:
    """Yield an example for each answer; `unit` is its passage and `group` its question."""
    if "passage" not in row:  # a row of tfds, which has one answer per row
        yield {**row, "unit": row["idx"]["paragraph"], "group": row["idx"]["question"]}
        return
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": row["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": answer["label"],
                "unit": row["idx"],
                "group": question["idx"],
            }


def _wsc(row: Row) -> Iterable[Row]:
    """Put asterisks around the pronoun: its index counts words, and is wrong in a few rows."""
    flat = {**row, **row.get("target", {})}
    words, span = flat["text"].split(), flat["span2_text"].split()

    def plain(parts: list[str]) -> list[str]:  # "he's" is the word "he"
        stripped = (part.strip(string.punctuation).lower() for part in parts)
        return [re.split(r"['\u2019]", part)[0] for part in stripped]

    positions = sorted(range(len(words)), key=lambda at: abs(at - flat["span2_index"]))
    matches = (at for at in positions if plain(words[at : at + len(span)]) == plain(span))
    first = next(matches, None)
    if not span or first is None:
        raise ValueError(f"span2_text {flat['span2_text']!r} must be words of its text")
    words[first] = "*" + words[first]
    words[first + len(span) - 1] += "*"
    yield {**flat, "marked": " ".join(words), "pronoun": flat["span2_text"]}


_BINARY, _BOOLEAN = ("0", "1"), ("False", "True")
_ENTAILED = ("entailment", "not_entailment")
_PARAPHRASE = "First: {{{0}}}\nSecond: {{{1}}}\nQuestion: Do both say the same?\nAnswer:"
_FOLLOWS = "Text: {{{0}}}\nClaim: {{{1}}}\nQuestion: Does the claim follow from the text?\nAnswer:"

_ALL = (
    Task(
        "glue/cola", "CoLA", "{sentence}", "",
        "Sentence: {sentence}\nQuestion: Is this good grammar?\nAnswer:", "sentence", ("no", "yes"),
        ("unacceptable", "acceptable"), ("matthews", "accuracy"), _BINARY, "is_acceptable",
        header=("source", "is_acceptable", "note", "sentence"),
    ),
    Task(
        "glue/sst2", "SST-2", "{sentence}", "",
        "Review: {sentence}\nQuestion: Is it negative or positive?\nAnswer:", "sentence",
        ("negative", "positive"), ("negative", "positive"), ("accuracy",), _BINARY,
    ),
    Task(
        "glue/mrpc", "MRPC", "{sentence1}", "{sentence2}",
        _PARAPHRASE.format("sentence1", "sentence2"), "sentence1", ("no", "yes"),
        ("not_equivalent", "equivalent"), ("f1", "accuracy"), _BINARY, "Quality",
        {"sentence1": "#1 String", "sentence2": "#2 String"},
    ),
    Task(
        "glue/stsb", "STS-B", "{sentence1}", "{sentence2}", "", "", (), ("score",),
        ("pearson", "spearman"), label="score", bounds=(0.0, 5.0),
    ),
    Task(
        "glue/qqp", "QQP", "{question1}", "{question2}",
        _PARAPHRASE.format("question1", "question2"), "question1", ("no", "yes"),
        ("not_duplicate", "duplicate"), ("f1", "accuracy"), _BINARY, "is_duplicate",
    ),
    Task(
        "glue/mnli", "MNLI", "{premise}", "{hypothesis}",
        _FOLLOWS.format("premise", "hypothesis"), "premise", ("yes", "maybe", "no"),
        ("entailment", "neutral", "contradiction"), ("accuracy",), label="gold_label",
        columns={"premise": "sentence1", "hypothesis": "sentence2"},
        dev={
            "test": ("dev_matched", "validation_matched"),
            "test_mismatched": ("dev_mismatched", "validation_mismatched"),
        },
    ),
    Task(
        "glue/qnli", "QNLI", "{question}", "{sentence}",
        "Text: {sentence}\nQuestion: {question}\nDoes the text answer the question?\nAnswer:",
        "sentence", ("yes", "no"), _ENTAILED, ("accuracy",),
    ),
    Task(
        "glue/rte", "RTE", "{sentence1}", "{sentence2}", _FOLLOWS.format("sentence1", "sentence2"),
        "sentence1", ("yes", "no"), _ENTAILED, ("accuracy",),
    ),
    Task(
        "glue/wnli", "WNLI", "{sentence1}", "{sentence2}",
        _FOLLOWS.format("sentence1", "sentence2"), "sentence1", ("no", "yes"),
        ("not_entailment", "entailment"), ("accuracy",), _BINARY,
    ),
    Task(
        "super_glue/boolq", "BoolQ", "{question}", "{passage}",
        "Text: {passage}\nQuestion: {question}?\nAnswer:", "passage", ("no", "yes"), _BOOLEAN,
        ("accuracy",),
    ),
    Task(
        "super_glue/cb", "CB", "{premise}", "{hypothesis}",
        _FOLLOWS.format("premise", "hypothesis"), "premise", ("yes", "no", "maybe"),
        ("entailment", "contradiction", "neutral"), ("macro_f1", "accuracy"),
    ),
    Task(
        "super_glue/copa", "COPA", "{premise} What was the {question}?", "{choice1} Or: {choice2}",
        "{premise}\nQuestion: What was the {question} of this?\nAnswer:", "premise",
        ("{choice1}", "{choice2}"), ("choice1", "choice2"), ("accuracy",), _BINARY,
    ),
    Task(
        "super_glue/multirc", "MultiRC", "{paragraph}", "{question} {answer}",
        "Text: {paragraph}\nQuestion: {question}\nIs this a right answer: {answer}\nAnswer:",
        "paragraph", ("no", "yes"), _BOOLEAN, ("f1", "exact_match"), _BINARY, unfold=_multirc,
    ),
    Task(
        "super_glue/rte", "RTE", "{premise}", "{hypothesis}",
        _FOLLOWS.format("premise", "hypothesis"), "premise", ("yes", "no"), _ENTAILED,
        ("accuracy",),
    ),
    Task(
        "super_glue/wic", "WiC", "{word}: {sentence1}", "{sentence2}",
        "First: {sentence1}\nSecond: {sentence2}\n"
        "Question: Does the word {word} have the same meaning in both?\nAnswer:",
        "sentence1", ("no", "yes"), _BOOLEAN, ("accuracy",),
    ),
    Task(
        "super_glue/wsc", "WSC", "{marked}", "{span1_text}",
        "Text: {marked}\nQuestion: Does *{pronoun}* mean {span1_text}?\nAnswer:", "marked",
        ("no", "yes"), _BOOLEAN, ("accuracy",), unfold=_wsc, tfds="super_glue/wsc.fixed",
    ),
)  # fmt: skip

TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}

# texts of a table, which has classes of its own
SINGLE = Task("text", "", "{text}", "", "", "", (), (), ("accuracy", "macro_f1"))
PAIR = SINGLE._replace(name="text_pair", second="{text_pair}")
_OF_TABLES = {task.name: task for task in (SINGLE, PAIR)}


def lookup(name: str) -> Task:
    """Return the task of a name such as "glue/sst2" or "super_glue/boolq"; "text" of a table.

    Raises:
        UserError: on "" or an unknown name, with the nearest one.

    >>> lookup("glue/cola").metrics
    ('matthews', 'accuracy')
    """
    if name in TASKS:
        return TASKS[name]
    if name in _OF_TABLES:
        return _OF_TABLES[name]
    if not name:
        raise UserError(
            "data.task is not set; name one such as glue/sst2 or super_glue/boolq, or text for a "
            "table of your own (.csv, .tsv, .jsonl, .parquet, .arrow)"
        )
    full_names = {task.rsplit("/", 1)[1]: task for task in TASKS}  # by name without benchmark
    spelling = name.lower().replace("superglue", "super_glue").replace("-", "")
    hint = did_you_mean(full_names.get(spelling, spelling), TASKS)
    raise UserError(
        f"data.task is {name!r}, which is unknown; {hint}The tasks are {', '.join(TASKS)}"
    )


def fields(*templates: str) -> tuple[str, ...]:
    """Return the field names of templates, without repetitions, in order.

    >>> fields("{word}: {sentence1}", "{sentence2} {word}")
    ('word', 'sentence1', 'sentence2')
    """
    parsed = (part for template in templates for part in string.Formatter().parse(template))
    return tuple(dict.fromkeys(name for _, name, _, _ in parsed if name))


def sides(task: Task, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the input of an encoder for an example with these fields: one text, or a pair.

    >>> sides(TASKS["super_glue/wic"], {"word": "f", "sentence1": "f g", "sentence2": "f h"})
    ('f: f g', 'f h')
    """
    return tuple(side.format(**texts) for side in (task.first, task.second) if side)


def prompt(task: Task, texts: Mapping[str, str]) -> Prompt:
    r"""Return the input of a generative model for an example with these fields.

    >>> prompt(TASKS["super_glue/boolq"], {"passage": "A is B.", "question": "is a b"}).after
    '\nQuestion: is a b?\nAnswer:'
    """
    before, after = task.prompt.split("{" + task.long + "}")
    return Prompt(before.format(**texts), texts[task.long], after.format(**texts))


def answers(task: Task, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the answers from which a generative model chooses, one for each class."""
    return tuple(answer.format(**texts) for answer in task.answers)
