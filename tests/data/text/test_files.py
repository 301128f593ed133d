"""The table of tasks, and the readers of GLUE's and SuperGLUE's files and of tfds."""

import gzip
import json
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from kdjax.data.text import files as text_files
from kdjax.data.text import tasks as text_tasks
from kdjax.data.text.tasks import TASKS
from kdjax.errors import UserError

SHARED = Path(__file__).parents[3] / "../shared/data"
COLA = 'ab\t1\t\tBirds sing.\nab\t0\t*\tBirds "sings.\n'
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tIt 's late .\t\" Late it is .\n"
SST2 = "sentence\tlabel\nfine work \t1\ndull\t0\n"
MULTIRC = {
    "idx": 4,
    "passage": {
        "text": "Ann ran.",
        "questions": [
            {"idx": 9, "question": "Who?", "answers": [
                {"text": "Ann", "idx": 0, "label": 1}, {"text": "Bob", "idx": 1, "label": 0}]},
            {"idx": 10, "question": "What?", "answers": [{"text": "sat", "idx": 2, "label": 0}]},
        ],
    },
}  # fmt: skip
WSC = {
    "text": 'Tom saw Al. "I know him," he said.',
    "target": {"span1_text": "Al", "span1_index": 2, "span2_text": "him", "span2_index": 5},
    "label": True,
}
# examples of the development file, and those of class 1, counted with zcat, cut and grep
REAL = {
    "glue/cola": ("glue", 1043, 721),
    "glue/sst2": ("glue", 872, 444),
    "glue/mrpc": ("glue", 408, 279),
    "glue/qnli": ("glue", 5463, 2761),
    "glue/rte": ("glue", 277, 131),
    "glue/wnli": ("glue", 71, 31),
    "glue/stsb": ("glue", 1500, None),
    "super_glue/boolq": ("superglue", 3270, 2033),
    "super_glue/cb": ("superglue", 56, 28),
    "super_glue/copa": ("superglue", 100, 45),
    "super_glue/multirc": ("superglue", 4848, 2075),
    "super_glue/rte": ("superglue", 277, 131),
    "super_glue/wic": ("superglue", 638, 319),
    "super_glue/wsc": ("superglue", 104, 38),
}


def write(folder, task, text, names=("train", "dev")):
    folder = folder / TASKS[task].folder
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    return str(folder.parent)


def write_json(folder, task, rows, names=("train", "val")):
    folder = folder / TASKS[task].folder
    folder.mkdir(exist_ok=True)
    for name in names:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return str(folder.parent)


class TestTable:
    @pytest.mark.parametrize("name", TASKS)
    def test_row(self, name):
        task = TASKS[name]
        assert name == task.name
        if task.bounds is None:
            assert (
                len(task.answers) == len(task.class_names) == len(task.labels or task.class_names)
            )
            assert task.prompt.count("{" + task.long + "}") == 1
            assert task.prompt.endswith("Answer:")
        if task.header:
            expected = text_tasks.fields(task.first, task.second, task.prompt)
            assert {task.label, *expected} <= set(task.header)

    @pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("glue/")])
    def test_fields_match_tfds(self, name, tmp_path):
        task = TASKS[name]
        features = text_files._builder(name, str(tmp_path)).info.features
        expected = text_tasks.fields(task.first, task.second, task.prompt)
        assert set(expected) == set(features) - {"idx", "label"}
        if task.bounds is None:
            assert features["label"].names == list(task.class_names)

    def test_names(self):
        assert len(TASKS) == 16
        with pytest.raises(UserError, match="did you mean glue/sst2"):
            text_tasks.lookup("SST-2")
        with pytest.raises(UserError, match="did you mean super_glue/boolq"):
            text_tasks.lookup("superglue/boolq")


class TestGlue:
    def test_cola_has_no_header_and_quotes_are_literal(self, tmp_path):
        examples = text_files.read(TASKS["glue/cola"], write(tmp_path, "glue/cola", COLA))
        assert [(e.fields["sentence"], e.label) for e in examples.train] == [
            ("Birds sing.", 1),
            ('Birds "sings.', 0),
        ]

    @pytest.mark.parametrize("inside", [True, False])
    def test_mrpc_in_a_folder_or_among_other_files(self, tmp_path, inside):
        path = write(tmp_path, "glue/mrpc", MRPC)
        examples = text_files.read(TASKS["glue/mrpc"], f"{path}/MRPC" if inside else path)
        (example,) = examples.evals["test"]
        assert example.fields == {"sentence1": "It 's late .", "sentence2": '" Late it is .'}
        assert example.label == 1

    def test_mnli_has_two_development_sets(self, tmp_path):
        line = "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA man.\tA {}.\tneutral\t{}\n"
        write(tmp_path, "glue/mnli", line.format("p", "neutral"), ["train"])
        write(tmp_path, "glue/mnli", line.format("q", "entailment"), ["dev_matched"])
        path = write(tmp_path, "glue/mnli", line.format("r", "contradiction"), ["dev_mismatched"])
        examples = text_files.read(TASKS["glue/mnli"], path)
        both = {**examples.evals, "train": examples.train}
        assert {name: (e.fields["hypothesis"], e.label) for name, (e,) in both.items()} == {
            "train": ("A p.", 1),
            "test": ("A q.", 0),
            "test_mismatched": ("A r.", 2),
        }

    def test_stsb_is_a_score(self, tmp_path):
        text = "sentence1\tsentence2\tscore\na\tb\t2.5\nc\td\t{}\n"
        task, path = TASKS["glue/stsb"], write(tmp_path, "glue/stsb", text.format("5.000"))
        assert [e.label for e in text_files.read(task, path).train] == [2.5, 5.0]
        for bad in ("5.5", "nan", "high"):
            write(tmp_path, "glue/stsb", text.format(bad))
            with pytest.raises(UserError, match=rf"tsv line 3: score is '{bad}'; give a number"):
                text_files.read(task, path)

    def test_a_line_ends_with_a_line_feed_only(self, tmp_path):
        text = "sentence\tlabel\r\none\u2028two\x85three\t1\r\n"
        examples = text_files.read(TASKS["glue/sst2"], write(tmp_path, "glue/sst2", text))
        assert examples.train[0].fields["sentence"] == "one\u2028two\x85three"


QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


class TestBrokenRows:
    """Rows as QQP's: whole ones, those over several lines in quotes, and others."""

    GOOD = "".join(f'{n}\t1\t2\tq {n}?\t"r" {n}?\t{n % 2}\n' for n in range(200))

    def read(self, tmp_path, text):
        path = write(tmp_path, "glue/qqp", QQP + text)
        return text_files.read(TASKS["glue/qqp"], path).train

    def test_line_breaks_in_quotes_are_spaces(self, tmp_path):
        text = '7\t1\t2\t"a ""b""\nc\n\nd"\t"e\nf"\t1\n8\t1\t2\tg\th\t0\n'
        examples = self.read(tmp_path, text)
        pairs = [(*e.fields.values(), e.label) for e in examples]
        assert pairs == [('a "b" c d', "e f", 1), ("g", "h", 0)]

    @pytest.mark.parametrize(
        ("text", "count"),
        [("7\t1\t2\ta\nb\tc\t1\n", 2), ('7\t1\t2\t"a\n', 1), ("7\t1\t2\ta\tb\tc\t1\n", 1)],
    )
    def test_others_are_skipped_and_counted(self, tmp_path, text, count):
        message = rf"train\.tsv line 202 has . columns; glue/qqp needs 6.*\. {count} such lines"
        with pytest.warns(UserWarning, match=message):
            examples = self.read(tmp_path, self.GOOD + text + self.GOOD)
        assert len(examples) == 400
        assert sum(e.label for e in examples) == 200

    def test_too_many_are_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"line 202 has 1 columns; glue/qqp needs 6"):
            self.read(tmp_path, self.GOOD + "a\n" * 3)

    def test_a_file_without_line_feeds_is_not_repeated(self, tmp_path):
        path = write(tmp_path, "glue/qqp", (QQP + self.GOOD).replace("\n", "\r"))
        with pytest.raises(UserError, match=r"ends its lines with CR alone") as caught:
            text_files.read(TASKS["glue/qqp"], path)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        "header", ["label\t" + "x" * 9999, "sentence\tlabel\na\t" + "y" * 9999]
    )
    def test_long_texts_are_not_repeated(self, tmp_path, header):
        path = write(tmp_path, "glue/sst2", header + "\n")
        with pytest.raises(UserError) as caught:
            text_files.read(TASKS["glue/sst2"], path)
        assert len(str(caught.value)) < 500


class TestSuperGlue:
    def test_multirc_has_an_example_for_each_answer(self, tmp_path):
        path = write_json(tmp_path, "super_glue/multirc", [MULTIRC])
        examples = text_files.read(TASKS["super_glue/multirc"], path).train
        assert [e.label for e in examples] == [1, 0, 0]
        assert [e.group for e in examples] == [(4, 9), (4, 9), (4, 10)]
        assert {e.unit for e in examples} == {4}
        assert text_tasks.sides(TASKS["super_glue/multirc"], examples[1].fields) == (
            "Ann ran.",
            "Who? Bob",
        )

    @pytest.mark.parametrize(("index", "expected"), [(5, '*him,"*'), (0, '*him,"*')])
    def test_wsc_marks_the_pronoun(self, tmp_path, index, expected):
        row = {**WSC, "target": {**WSC["target"], "span2_index": index}}
        path = write_json(tmp_path, "super_glue/wsc", [row])
        (example,) = text_files.read(TASKS["super_glue/wsc"], path).train
        assert example.fields["marked"] == f'Tom saw Al. "I know {expected} he said.'
        assert example.label == 1

    def test_wsc_finds_a_pronoun_in_a_contraction(self, tmp_path):
        row = {**WSC, "text": "Tom saw Al because he's near where he sat."}
        row["target"] = {**WSC["target"], "span2_text": "he", "span2_index": 4}
        path = write_json(tmp_path, "super_glue/wsc", [row])
        (example,) = text_files.read(TASKS["super_glue/wsc"], path).train
        assert example.fields["marked"] == "Tom saw Al because *he's* near where he sat."

    def test_copa_answers_are_its_choices(self, tmp_path):
        row = {"premise": "It fell.", "choice1": "A.", "choice2": "B.", "question": "cause"}
        path = write_json(tmp_path, "super_glue/copa", [{**row, "label": 1}])
        (example,) = text_files.read(TASKS["super_glue/copa"], path).train
        assert text_tasks.answers(TASKS["super_glue/copa"], example.fields) == ("A.", "B.")
        text = "".join(text_tasks.prompt(TASKS["super_glue/copa"], example.fields))
        assert text == "It fell.\nQuestion: What was the cause of this?\nAnswer:"

    def test_the_training_file_can_be_selected(self, tmp_path):
        row = {"question": "is it", "passage": "It is.", "label": True}
        task = TASKS["super_glue/boolq"]
        path = write_json(tmp_path, "super_glue/boolq", [row], ["train32", "val"])
        assert len(text_files.read(task, path).train) == 1
        write_json(tmp_path, "super_glue/boolq", [row] * 2, ["train400"])
        with pytest.raises(UserError, match=r"holds train32, train400; set data\.train_file"):
            text_files.read(task, path)
        assert len(text_files.read(task, path, "train400").train) == 2
        examples = text_files.read(task, path, "val")
        assert (len(examples.train), dict(examples.evals)) == (1, {})
        with pytest.raises(UserError, match="no file 'train7'; it has train32, train400, val"):
            text_files.read(task, path, "train7")


class TestErrors:
    @pytest.mark.parametrize(
        ("task", "text", "message"),
        [
            ("glue/sst2", "sentence\tscore\na\t1\n", r"train\.tsv lacks the column 'label'"),
            ("glue/sst2", SST2 + "dull\t2\n", r"train\.tsv line 4: label is '2'; .* has 0, 1"),
            ("glue/sst2", SST2 + "dull\n", r"line 4 has 1 columns; glue/sst2 needs 2: sentence"),
            ("glue/sst2", "sentence\tlabel\n", r"train\.tsv has no examples"),
            ("glue/sst2", "", r"train\.tsv has no examples"),
            ("glue/cola", "index\tsentence\n0\tBirds.\n", r"line 1 has 2 columns; .* needs 4"),
            ("glue/rte", "sentence1\tlabel\n", r"lacks the column 'sentence2'"),
        ],
    )
    def test_tsv(self, tmp_path, task, text, message):
        with pytest.raises(UserError, match=message) as caught:
            text_files.read(TASKS[task], write(tmp_path, task, text))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("task", "row", "message"),
        [
            ("wic", {"word": "a"}, r"jsonl\.gz line 1: 'sentence1' is None; it must be text"),
            ("boolq", {"question": "q", "passage": "p"}, r"label is None; .* has False, True"),
            ("boolq", {"question": "q", "passage": "p", "label": 1}, "label is 1"),
            ("multirc", {"passage": {"text": "p"}}, r"line 1 has no 'questions'"),
            ("wsc", {**WSC, "text": "Tom sat."}, r"span2_text 'him' must be words of its text"),
            ("wsc", {"text": "Tom sat."}, r"has no 'span2_text'; it has text"),
            ("cb", ["premise"], "line 1 is a list; give a JSON object"),
        ],
    )
    def test_jsonl(self, tmp_path, task, row, message):
        task = f"super_glue/{task}"
        with pytest.raises(UserError, match=message):
            text_files.read(TASKS[task], write_json(tmp_path, task, [row]))

    def test_damaged_files_are_errors(self, tmp_path):
        path = write_json(tmp_path, "super_glue/cb", [{}])
        (tmp_path / "CB/train.jsonl").write_text("{")  # has precedence over the gzipped file
        with pytest.raises(UserError, match=r"train\.jsonl line 1 is not JSON"):
            text_files.read(TASKS["super_glue/cb"], path)
        (tmp_path / "CB/train.jsonl").unlink()
        (tmp_path / "CB/train.jsonl.gz").write_bytes(b"no gzip")
        with pytest.raises(UserError, match=r"train\.jsonl\.gz cannot be read"):
            text_files.read(TASKS["super_glue/cb"], path)

    def test_folders(self, tmp_path):
        task = TASKS["glue/sst2"]
        with pytest.raises(UserError, match=r"data\.path=.* holds no train\.tsv\(\.gz\)"):
            text_files.read(task, str(tmp_path))
        path = write(tmp_path, "glue/sst2", SST2, ["train"])
        with pytest.raises(UserError, match=r"SST-2 holds no file 'dev'; it has train"):
            text_files.read(task, path)


class TestTfds:
    def test_mocked_sst2(self, tmp_path):
        with tfds.testing.mock_data(num_examples=7):
            examples = text_files.read(TASKS["glue/sst2"], None)
        assert len(examples.train) == len(examples.evals["test"]) == 7
        assert all(
            isinstance(e.fields["sentence"], str) and e.label in (0, 1) for e in examples.train
        )

    def test_unfolded_rows(self):
        task = TASKS["super_glue/multirc"]
        rows = [
            {
                "paragraph": b"Ann ran.",
                "question": b"Who?",
                "answer": b"Ann",
                "idx": {"paragraph": 4, "question": 9, "answer": 0},
                "label": 1,
            }
        ]
        (example,) = text_files._stored(task, rows, "tfds")
        assert (example.label, example.unit, example.group) == (1, 4, (4, 9))
        assert example.fields["paragraph"] == "Ann ran."
        with pytest.raises(UserError, match=r"tfds, example 0: label is -1"):
            text_files._stored(task, [{**rows[0], "label": -1}], "tfds")

    def test_missing_files_are_an_error(self, tmp_path):
        (tmp_path / "glue").mkdir()
        with pytest.raises(UserError, match=r"run: tfds build glue/sst2"):
            text_files.read(TASKS["glue/sst2"], str(tmp_path))
        with pytest.raises(UserError, match="train_file is 'x', which tfds does not have"):
            text_files.read(TASKS["glue/sst2"], str(tmp_path), "x")


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    family, size, positive = REAL[name]
    task = TASKS[name]
    folder = SHARED / family / task.folder
    if not folder.is_dir():
        pytest.skip("needs the data in ../shared")
    kind = "dev.tsv.gz" if family == "glue" else "val.jsonl.gz"
    examples = text_files.read_file(task, folder / kind)
    assert len(examples) == size
    assert all(all(e.fields.values()) for e in examples)
    if positive is not None:
        assert sum(e.label == 1 for e in examples) == positive
