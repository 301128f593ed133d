"""Text sources: splits, padding to few lengths, order, restart, and errors."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from kdjax import data
from kdjax.data import TextOptions
from kdjax.data.text import tokenize
from kdjax.errors import UserError
from tests.data import fakes
from tests.data.text.test_files import MULTIRC, write, write_json

SHARED = Path(__file__).parents[3] / "../shared/data"
LETTERS = "abcdefgh"
VOCABULARY = [*tokenize.SPECIAL, *LETTERS, *"0123456789", *(f"##{n}" for n in range(10))]
LENGTHS = (8, 12, 16, 32)


def sentence(row):
    """Return a text of 3 + row % 11 words that encodes its row: 5 to 15 tokens with both ends."""
    return " ".join([*str(row // 100), *str(row // 10 % 10), *str(row % 10)] + ["a"] * (row % 11))


def row_of(ids):
    return int("".join(VOCABULARY[i] for i in ids[1:4]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("glue")
    for name, rows in (("train", range(103)), ("dev", range(200, 223))):
        lines = "".join(f"{sentence(row)}\t{row % 4 // 3}\n" for row in rows)
        write(root, "glue/sst2", "sentence\tlabel\n" + lines, [name])
    (root / "vocab.txt").write_text("\n".join(VOCABULARY))
    return root


@pytest.fixture(scope="module")
def options(folder):
    return {
        "task": "glue/sst2",
        "batch_size": 8,
        "eval_batch_size": 5,
        "path": str(folder),
        "vocabulary": str(folder),
        "max_length": 32,
        "lengths": LENGTHS,
        "window": 3,
    }


@pytest.fixture(scope="module")
def source(options):
    return read_text(**options).source


def read_text(**keys):
    return data.read_text(*fakes.options(TextOptions, **keys))


def take(batches, count):
    return [next(batches) for _ in range(count)]


def check_rows(batch):
    """Check that every row of a batch matches its text: ids, padding, types and label."""
    for ids, mask, types, label in zip(
        *(batch[k] for k in ("input_ids", "attention_mask", "token_type_ids", "label")), strict=True
    ):
        size = mask.sum()
        row = row_of(ids)
        expected = [2, *(VOCABULARY.index(word) for word in sentence(row).split()), 3]
        assert ids[:size].tolist() == expected
        assert not ids[size:].any()
        assert mask.tolist() == [1] * size + [0] * (len(ids) - size)
        assert not types.any()
        assert label == row % 4 // 3


class TestClassify:
    def test_spec(self, source):
        assert source.size == {"train": 93, "validation": 10, "test": 23}
        assert source.spec.shape == (32,)
        assert source.spec.inputs == dict.fromkeys(
            ("input_ids", "attention_mask", "token_type_ids"), ((32,), "int32")
        )
        assert (source.spec.num_classes, source.spec.vocab_size) == (2, len(VOCABULARY))
        assert (source.spec.task, source.arrays) == ("glue/sst2", None)

    def test_batches(self, source):
        for batch in take(source.train(0, 3), 23):
            kinds = {name: array.dtype for name, array in batch.items()}
            assert kinds.pop("mask") == np.float32
            assert set(kinds.values()) == {np.dtype(np.int32)}
            assert set(kinds) == {*source.spec.inputs, "label", "id"}
            check_rows(batch)
            longest = batch["attention_mask"].sum(1).max()
            assert batch["input_ids"].shape == (8, min(n for n in LENGTHS if n >= longest))

    def test_an_epoch_contains_every_example_once(self, source):
        walked = take(source.train(0, 3), 22)
        for epoch in (walked[:11], walked[11:]):
            ids = np.concatenate([batch["id"] for batch in epoch])
            assert len(set(ids.tolist())) == 88
        assert not np.array_equal(walked[0]["id"], walked[11]["id"])

    def test_an_id_identifies_one_example(self, source):
        texts = {}
        for batch in [*source.evals["train"](), *take(source.train(0, 3), 11)]:
            for number, ids in zip(batch["id"], batch["input_ids"], strict=True):
                assert texts.setdefault(int(number), row_of(ids)) == row_of(ids)
        assert sorted(texts) == list(range(93))

    def test_restarts_exactly_at_any_step(self, source):
        walked = take(source.train(0, 3), 23)
        for step in (1, 10, 11, 22):
            (again,) = take(source.train(step, 3), 1)
            assert all(np.array_equal(again[name], walked[step][name]) for name in again)
        assert not np.array_equal(take(source.train(0, 4), 1)[0]["id"], walked[0]["id"])

    def test_batches_hold_similar_lengths(self, options, source):
        def spread(batches):
            sizes = [b["attention_mask"].sum(1) for b in take(batches.train(0, 0), 11)]
            return np.mean([np.ptp(size) for size in sizes]), [size.mean() for size in sizes]

        grouped, means = spread(source)
        random, _ = spread(read_text(**{**options, "window": 1}).source)
        assert grouped < random / 2
        assert means != sorted(means), "batches are shuffled"

    def test_evals_cover_each_split_once(self, source):
        for split, size in source.size.items():
            seen, lengths = [], []
            for batch in source.evals[split]():
                assert len(batch["mask"]) == 5
                check_rows(batch)
                real = batch["mask"] > 0
                seen += batch["id"][real].tolist()
                lengths += batch["attention_mask"].sum(1)[real].tolist()
            assert sorted(seen) == list(range(size))
            assert lengths == sorted(lengths)

    def test_splits(self, source):
        rows = {
            split: [row_of(i) for b in evals() for i in b["input_ids"][b["mask"] > 0]]
            for split, evals in source.evals.items()
        }
        assert sorted(rows["train"] + rows["validation"]) == list(range(103))
        assert sorted(rows["test"]) == list(range(200, 223))
        positive = sum(row % 4 == 3 for row in rows["validation"])
        assert positive in (2, 3), "25 of 103 are positive: 2.4 of 10"

    def test_limit(self, options):
        dataset = read_text(**{**options, "limit": 20}).source
        assert dataset.size == {"train": 20, "validation": 10, "test": 23}

    def test_a_vocabulary_is_trained_on_the_training_split(self, options):
        small = {**options, "vocabulary": None, "vocabulary_size": 40}
        dataset, again = (read_text(**small) for _ in range(2))
        words = tokenize.words(dataset.tokenizer)
        assert words == tokenize.words(again.tokenizer)
        assert dataset.source.spec.vocab_size == len(words)
        assert {"a", *"0123456789"} <= set(words)

    def test_the_development_file_is_the_test_split(self, options):
        dataset = read_text(**{**options, "train_file": "dev", "batch_size": 2}).source
        assert dataset.size == {"train": 15, "validation": 2, "test": 6}
        rows = [row_of(i) for s in dataset.size for b in dataset.evals[s]() for i in b["input_ids"]]
        assert set(rows) == set(range(200, 223))

    def test_regression(self, tmp_path, folder):
        lines = "".join(f"a\tb\t{n / 4}\n" for n in range(20))
        path = write(tmp_path, "glue/stsb", "sentence1\tsentence2\tscore\n" + lines)
        dataset = read_text(
            task="glue/stsb", path=path, vocabulary=str(folder), batch_size=4
        ).source
        assert (dataset.spec.num_classes, dataset.spec.class_names) == (1, ("score",))
        batch = next(dataset.train(0, 0))
        assert batch["label"].dtype == np.float32
        assert set(batch["label"].tolist()) <= {n / 4 for n in range(20)}
        assert batch["input_ids"][0, :5].tolist() == [2, 5, 3, 6, 3]
        assert batch["token_type_ids"][0, :6].tolist() == [0, 0, 0, 1, 1, 0]


class TestChoices:
    def test_batches(self, options):
        dataset = read_text(**{**options, "form": "choices"}).source
        assert dataset.spec.inputs == {
            "input_ids": ((32,), "int32"),
            "attention_mask": ((32,), "int32"),
            "choice_ids": ((2, 2), "int32"),
            "choice_mask": ((2, 2), "int32"),
        }
        batch = next(dataset.train(0, 0))
        assert set(batch) == {*dataset.spec.inputs, "label", "id", "mask"}
        assert batch["choice_ids"].shape == (8, 2, 2)
        assert batch["choice_ids"].dtype == batch["choice_mask"].dtype == np.int32

    def test_answers_of_all_splits_have_the_same_length(self, tmp_path, folder):
        row = {"premise": "a.", "choice1": "b", "choice2": "c", "question": "cause", "label": 0}
        write_json(tmp_path, "super_glue/copa", [row] * 4, ["train"])
        path = write_json(
            tmp_path, "super_glue/copa", [{**row, "choice1": "b c d e", "label": 1}], ["val"]
        )
        keys = {"vocabulary": str(folder), "form": "choices", "batch_size": 2, "validation": 1}
        dataset = read_text(task="super_glue/copa", path=path, **keys).source
        batch, (test,) = next(dataset.train(0, 0)), dataset.evals["test"]()
        assert batch["choice_ids"][0].tolist() == [[6, 3, 0, 0, 0], [7, 3, 0, 0, 0]]
        assert test["choice_ids"][0].tolist() == [[6, 7, 8, 9, 3], [7, 3, 0, 0, 0]]
        assert np.array_equal(test["choice_mask"], test["choice_ids"] > 0)
        assert dataset.spec.inputs["choice_ids"] == ((2, 5), "int32")

    def test_a_regression_has_no_choices(self):
        with pytest.raises(UserError, match="form is 'choices' but glue/stsb is a regression"):
            read_text(task="glue/stsb", form="choices", batch_size=1)


class TestGroups:
    def test_passages_stay_in_one_split_and_questions_have_ids(self, tmp_path, folder):
        rows = [{**MULTIRC, "idx": number} for number in range(10)]
        path = write_json(tmp_path, "super_glue/multirc", rows)
        keys = {"batch_size": 3, "eval_batch_size": 4, "vocabulary": str(folder), "validation": 3}
        dataset = read_text(task="super_glue/multirc", path=path, **keys)
        assert dataset.source.size == {"train": 21, "validation": 9, "test": 30}
        order = np.concatenate([b["id"][b["mask"] > 0] for b in dataset.source.evals["test"]()])
        for groups, number in zip(dataset.groups["test"], order, strict=True):
            assert groups == 2 * (number // 3) + (number % 3 == 2)


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"form": "generate"}, r"data\.form is 'generate'; choose from classify, choices"),
            ({"too_long": "cut"}, r"data\.too_long is 'cut'; choose from truncate, refuse"),
            ({"max_length": 4}, r"data\.max_length is 4; it must be >= 8"),
            ({"lengths": (8, 10, 12, 14)}, r"at most 4 lengths >= 1, the last being .* = 32"),
            ({"lengths": (0, 16)}, r"at most 4 lengths >= 1"),
            ({"lengths": (16, 33)}, r"at most 4 lengths >= 1, the last being .* = 32"),
            ({"window": 0}, r"data\.window is 0; it must be >= 1"),
            ({"split_seed": -1}, r"data\.split_seed is -1"),
            ({"eval_batch_size": 0}, r"eval_batch_size is 0"),
            ({"batch_size": 94}, r"batch_size is 94 but the training split has 93 examples"),
            ({"batch_size": 0}, r"batch_size is 0"),
            ({"tokenizer": "x"}, r"data\.vocabulary and data\.tokenizer are both set"),
            ({"test": 0.5}, r"data\.test is 0\.5 but .* ships a test split"),
            ({"validation": 1.5}, r"data\.validation is 1\.5"),
            ({"limit": 0}, r"data\.limit is 0"),
        ],
    )
    def test_invalid_options_are_errors(self, options, change, message):
        with pytest.raises(UserError, match=message):
            read_text(**{**options, **change})

    def test_negative_steps_are_errors(self, source):
        with pytest.raises(UserError, match="seed is 0 and step -1"):
            next(source.train(-1, 0))

    def test_cut_texts_give_a_warning(self, options):
        # A row has 5 + row % 11 tokens.
        short = {**options, "max_length": 12, "lengths": None}
        with pytest.raises(UserError, match=r"\d+ of 93 in train.* longer than .* = 12 tokens"):
            read_text(**short, too_long="refuse")
        with pytest.warns(
            UserWarning, match=r"\d+ of 23 in test are longer than 12 tokens"
        ) as caught:
            dataset = read_text(**short)
        counts = re.findall(r"(\d+) of \d+ in (\w+)", str(caught[0].message))
        truncated = {split: int(count) for count, split in counts}
        assert truncated["test"] == sum(row % 11 >= 8 for row in range(200, 223))
        both = truncated["train"] + truncated["validation"]
        assert both == sum(row % 11 >= 8 for row in range(103))
        assert next(dataset.source.train(0, 0))["input_ids"].shape[1] <= 12

    def test_no_warning_if_all_texts_fit(self, options):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_text(**options)

    def test_an_empty_text_is_an_error(self, tmp_path):
        import tokenizers as library

        library.Tokenizer(library.models.WordLevel({"a": 0}, unk_token="a")).save(
            str(tmp_path / "tokenizer.json")
        )
        path = write(tmp_path, "glue/sst2", "sentence\tlabel\n" + "a\t1\n" * 5 + " \t0\n" * 5)
        with pytest.raises(UserError, match=r"example \d of train has no tokens"):
            read_text(task="glue/sst2", path=path, tokenizer=str(tmp_path), batch_size=1)


@pytest.mark.parametrize("form", ["classify", "choices"])
def test_real_rte(form):
    folder = SHARED / "glue/RTE"
    if not folder.is_dir():
        pytest.skip("needs RTE and BERT's vocabulary in ../shared")
    with pytest.warns(UserWarning, match="33 of 277 in test" if form == "classify" else "in test"):
        dataset = read_text(
            task="glue/rte",
            path=str(folder),
            form=form,
            batch_size=16,
            eval_batch_size=32,
            vocabulary=str(SHARED / "bert_uncased_vocab.txt"),
        ).source
    assert dataset.size == {"train": 2241, "validation": 249, "test": 277}
    shapes = {batch["input_ids"].shape for batch in take(dataset.train(0, 0), 140)}
    assert shapes <= {(16, length) for length in (32, 64, 96, 128)}
    label = np.concatenate([b["label"][b["mask"] > 0] for b in dataset.evals["test"]()])
    assert label.sum() == 131
