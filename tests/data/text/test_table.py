"""Texts of tables: .csv, .tsv, .jsonl and .arrow, by `data.columns` or the usual names."""

import numpy as np
import pyarrow as pa
import pytest

from kdjax.data import read_rows
from kdjax.errors import UserError
from kdjax.evaluation.text import task_metrics
from kdjax.experiment.build import data as build_data
from kdjax.experiment.config.resolve import from_dict
from tests.data import tiny_tables

WORDS = ("bad", "good", "fine")


def load(name, path, **keys):
    table = {"name": name, "path": str(path), "max_length": 16, **keys}
    return build_data.load(from_dict({"batch_size": 4, "data": table}))


def write_csv(file, header="review,mood", count=24, delimiter=","):
    rows = [f'"a {WORDS[i % 3]}, long\nfilm {i}"{delimiter}{WORDS[i % 3]}' for i in range(count)]
    file.write_text("\n".join([header.replace(",", delimiter), *rows]) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_a_file_is_divided_into_splits(tmp_path, suffix, delimiter):
    file = write_csv(tmp_path / f"films.{suffix}", delimiter=delimiter)
    loaded = load("text", file, columns={"text": "review", "label": "mood"}, validation=3)
    assert loaded.source.size == {"train": 15, "validation": 3, "test": 6}
    assert loaded.source.spec.class_names == ("bad", "fine", "good")
    batch = next(loaded.source.train(0, 0))
    words = loaded.dataset.tokenizer.encoder.decode(batch["input_ids"][0].tolist())
    assert ("bad", "fine", "good")[batch["label"][0]] in words


def test_files_of_splits_and_the_name_hf(tmp_path):
    for split, count in (("train", 24), ("dev", 6), ("test", 9)):
        write_csv(tmp_path / f"films_{split}.csv", "text,label", count)
    loaded = load("hf", tmp_path)
    assert loaded.source.size == {"train": 24, "validation": 6, "test": 9}
    assert loaded.source.digest == load("text", tmp_path, task="text").source.digest
    assert {"accuracy", "macro_f1"} <= loaded.task.metrics(loaded.source.spec).keys()
    assert task_metrics("text", np.eye(3), np.arange(3)) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_the_matched_part_of_mnli_is_read(tmp_path):
    for split, count in (("train", 24), ("validation_matched", 6), ("validation_mismatched", 9)):
        write_csv(tmp_path / f"{split}-00000-of-00001.csv", "text,label", count)
    with pytest.warns(UserWarning, match="1 files of no split left out: validation_mismatched-0"):
        assert load("hf", tmp_path).source.size["test"] == 6


def test_pairs_with_names_of_classes(tmp_path):
    table = pa.table({"premise": ["a b"] * 12, "hypothesis": ["a"] * 12, "label": [0, 1] * 6})
    names = tiny_tables.arrow_table(1, ("yes", "no")).schema.metadata
    tiny_tables.write_arrow(tmp_path / "data.arrow", table.replace_schema_metadata(names))
    source = load("hf", tmp_path).source
    assert source.spec.class_names == ("yes", "no")
    assert next(source.train(0, 0))["token_type_ids"].max() == 1


def test_a_question_and_its_sentence_are_a_pair(tmp_path):
    rows = "".join(f"what is {word}\tit is {word}\t{word}\n" for word in WORDS * 8)
    (tmp_path / "qnli.tsv").write_text(f"question\tsentence\tlabel\n{rows}")
    source = load("text", tmp_path / "qnli.tsv").source
    assert next(source.train(0, 0))["token_type_ids"].max() == 1


def test_unread_columns_of_text_are_named(tmp_path):
    rows = "".join(f"{i},title {i},{word},{word}\n" for i, word in enumerate(WORDS * 8))
    (tmp_path / "x.csv").write_text(f"id,title,content,label\n{rows}")
    with pytest.warns(UserWarning, match="the text is content; not read: title; data.columns.text"):
        load("text", tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (['"Great" film', 'a "so so" one', '"bad'], ['"Great" film', 'a "so so" one', '"bad']),
        (['"Great film', "fine", 'ends with"'], ['"Great film', "fine", 'ends with"']),
        (['"a ""good"" film"', "b"], ['a "good" film', "b"]),
    ],
)
def test_quotes_of_a_tsv_are_text_unless_cells_are_quoted(tmp_path, lines, texts):
    content = "".join(f"{line}\t{number}\r\n" for number, line in enumerate(lines))
    (tmp_path / "x.tsv").write_text(f"text\tlabel\n{content}")
    assert [row["text"] for row in read_rows(tmp_path / "x.tsv")] == texts


@pytest.mark.parametrize(
    ("text", "keys", "match"),
    [
        ("a,b\nx,y\n", {}, "no column of texts .* set data.columns.text to one of a, b"),
        ("text,b\nx,y\n", {}, "no column of labels .* one of text, b"),
        ("text,label\nx\n", {}, "line 2 has 1 cells, but its first line names 2 columns"),
        ("text,label\n", {}, "train has no rows"),
        ("text,label\nx,\ny,b\n", {}, "the label of row 0 is ''"),
        ("text,label\nx,a\ny,a\n", {}, "the only class is a; at least two are needed"),
        ("text,label\nx,a\ny,b\n", {"columns": {"text_pair": "z"}}, "text_pair is 'z'"),
        ("text,label\nx,a\ny,b\n", {"form": "choices"}, "'choices' but text has no answers"),
        ("text,label\nx,a\ny,b\n", {"train_file": "a"}, "train_file is 'a'"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, keys, match):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        load("text", tmp_path / "x.csv", **keys)


def test_keys_of_another_kind_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": 1, "label": "a"}\n{"text": "b", "label": "b"}\n')
    with pytest.raises(UserError, match=r"data\.task is set, but hf of .* is read as texts"):
        load("hf", tmp_path, task="glue/rte")
    with pytest.raises(UserError, match="row 0 of column text is 1; it must be text"):
        load("hf", tmp_path)
    path = tiny_tables.save_to_disk(tmp_path / "images")
    with pytest.raises(UserError, match=r"max_length is set, but hf of .* is read as images"):
        load("hf", path)
    with pytest.raises(UserError, match=r"data\.columns is set, but only hf, text, webdataset has"):
        load("digits", path, max_length=128, columns={"label": "a"})
