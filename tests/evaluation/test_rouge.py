"""ROUGE-L of completions: the prompts of the data, chunks, members, and what is refused."""

import json

import jax
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from kdjax import models
from kdjax.data import BatchOptions, LanguageOptions, SplitOptions, read_language, save_tokenizer
from kdjax.errors import UserError
from kdjax.evaluation import rouge
from kdjax.evaluation.text_samples import write_texts, writer_completer
from tests.data import tiny_language
from tests.evaluation.test_text_samples import writer


def read(folder, packing):
    path = str(tiny_language.write(folder, prompts=True))
    options = LanguageOptions(path, bpe_size=280, max_length=64, packing=packing)
    return read_language(options, BatchOptions(2, 2), SplitOptions(validation=2, test=20))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def dataset(tmp_path):
    return read(tmp_path, "pack")


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_pairs_are_those_of_the_data(tmp_path, packing):
    dataset = read(tmp_path, packing)
    pairs = rouge.prompt_pairs(dataset, 100)
    known = [(row["prompt"], row["completion"]) for row in tiny_language.rows(prompts=True)]
    assert len({*pairs}) == len(pairs) == 20
    places = [known.index(pair) for pair in pairs]
    assert places == sorted(places)  # of the documents, not of the packed rows
    assert rouge.prompt_pairs(dataset, 3) == pairs[:3]


def test_scores_are_those_of_each_completion(dataset):
    first = writer(dataset, "image")
    other = first._replace(variables=jax.tree.map(lambda x: 2 * x, first.variables))
    scores = rouge.rouge_l(dataset, {"student": [first, other]}, 18)["student/rouge_l"]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    complete = writer_completer(dataset, first)  # neither padded nor in chunks
    rule = models.Sampling(32, temperature=0.0)
    for score, each in zip(scores, (first, other), strict=True):
        expected = []
        for pair in rouge.prompt_pairs(dataset, 18):
            (text,) = complete(each.variables, [pair.prompt], rule)
            expected.append(scorer.score(pair.reference, text)["rougeL"].fmeasure)
        assert score == pytest.approx(np.mean(expected))


def test_prompts_have_their_special_tokens(tmp_path):
    dataset = read(tmp_path, "pad")
    dataset.tokenizer.encoder.add_special_tokens(["<|user|>"])
    rows = [{"prompt": "<|user|>two plus two is", "completion": " four"}] * 9
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_tokenizer(dataset.tokenizer, tmp_path)
    options = LanguageOptions(str(tmp_path / "sums.jsonl"), tokenizer=str(tmp_path), max_length=64)
    chat = read_language(options, BatchOptions(2, 2), SplitOptions(validation=2, test=2))
    assert {*rouge.prompt_pairs(chat, 9)} == {("<|user|>two plus two is", " four")}
    prompts = [sample["prompt"] for sample in write_texts(chat, {"s": writer(chat, "image")})["s"]]
    assert {*prompts} == {"<|user|>two plus two is"}


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("The cats_sat, 12 times!", "a cat sat running 12", None),
        ("привет мир", "привет, МИР", 1.0),
        ("東京の天気", "東京の朝", 2 * 3 / 9),
        ("हानि", "हिना", 0.0),
        ("élan", "lan", 0.0),
        ("e\u0301lan", "élan", 1.0),
        ("", "word", 0.0),
    ],
)
def test_words_of_all_scripts(reference, text, expected):
    if expected is None:  # as rouge-score itself
        usual = RougeScorer(["rougeL"], use_stemmer=True)
        expected = usual.score(reference, text)["rougeL"].fmeasure
        assert 0 < expected < 1
    score = rouge._load_scorer().score(reference, text)["rougeL"].fmeasure
    assert score == pytest.approx(expected)


def test_references_score_one_and_other_words_zero(dataset, monkeypatch):
    pairs = rouge.prompt_pairs(dataset, 4)
    answers = {pair.prompt: pair.reference for pair in pairs}
    for reply, expected in ((answers.get, 1.0), (lambda prompt: "no such words", 0.0)):
        monkeypatch.setattr(
            rouge,
            "writer_completer",
            lambda *_, reply=reply, **__: lambda variables, prompts, rule: [*map(reply, prompts)],
        )
        scores = rouge.rouge_l(dataset, {"student": [writer(dataset, "image")]}, 4)
        assert scores["student/rouge_l"] == [expected]


def test_what_is_missing_is_refused(dataset, tmp_path, monkeypatch):
    rouge.check(dataset, 1)
    path = str(tiny_language.write(tmp_path / "plain", prompts=False))
    options = LanguageOptions(path, bpe_size=280, max_length=64)
    plain = read_language(options, BatchOptions(2, 2), SplitOptions(validation=2, test=4))
    rouge.check(plain, 0)
    with pytest.raises(UserError, match="rouge_prompts is 5, but no test document has a prompt"):
        rouge.check(plain, 5)
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(
        UserError, match=r"needs the package rouge-score: pip install 'kdjax\[rouge"
    ):
        rouge.check(dataset, 1)
