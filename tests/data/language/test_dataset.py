"""Language models' data: documents, pieces, packed rows, order, and one line for bad input."""

import json

import numpy as np
import pytest

from kdjax.data.language.dataset import read_language
from kdjax.data.language.packing import best_fit
from kdjax.data.language.tokenizers import END, train_byte_level
from kdjax.data.options import BatchOptions, LanguageOptions, SplitOptions
from kdjax.data.text import tokenize
from kdjax.errors import UserError

WORDS = ("alpha", "beta", "gamma", "delta", "ünïcode", "zeta")
SPLITTING = SplitOptions(validation=2, test=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def texts(count=12):
    return [" ".join(WORDS[(i + j) % 6] for j in range(3 + 5 * (i % 4))) for i in range(count)]


def write(folder, rows, name="all.jsonl"):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def read(path, splitting=SPLITTING, **options):
    settings = {"bpe_size": 280, "max_length": 16, **options}
    return read_language(LanguageOptions(path, **settings), BatchOptions(2, 4), splitting)


def spell(dataset, text):
    """Return a text as its tokens spell it, a character for each byte."""
    return "".join(dataset.tokenizer.encoder.encode(text).tokens)


def spell_rows(dataset, batches, prefix=""):
    """Return the predicted texts of all segments; check that labels are the tokens after."""
    tokenizer = (dataset.second if prefix else dataset).tokenizer
    found = []
    for batch in batches:
        for row in np.flatnonzero(batch["mask"]):
            ids, segment, label = (
                batch[f"{prefix}{name}"][row] for name in ("input_ids", "segment_ids", "label")
            )
            for number in range(1, segment.max() + 1):
                inside = segment == number
                assert np.array_equal(ids[inside][1:], label[inside][:-1]) or -1 in label[inside]
                kept = [int(x) for x in label[inside] if x not in (-1, tokenizer.end_id)]
                found.append("".join(map(tokenizer.encoder.id_to_token, kept)))
    return found


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_every_token_is_predicted_once(tmp_path, packing):
    rows = [{"text": text} for text in texts()]
    dataset = read(write(tmp_path, rows), packing=packing)
    source = dataset.source
    found = [text for split in source.evals for text in spell_rows(dataset, source.evals[split]())]
    right = [spell(dataset, text) for text in texts()]
    assert sorted("".join(found)) == sorted("".join(right))
    assert sum(dataset.num_bytes.values()) == sum(len(t.encode()) for t in texts())
    (batch, *_) = source.evals["train"]()
    assert np.array_equal(batch["attention_mask"], batch["segment_ids"] > 0)
    assert (batch["label"][batch["attention_mask"] == 0] == -1).all()
    assert all("0 documents truncated" in line for line in dataset.summary)


def test_rows_are_packed_better_than_padded(tmp_path):
    path = write(tmp_path, [{"text": text} for text in texts()])
    packed, padded = (read(path, packing=packing).source.size for packing in ("pack", "pad"))
    assert packed["train"] < padded["train"]
    rows = best_fit([3, 3, 2, 2, 2, 4], 4)
    assert sorted(piece for row in rows for piece in row) == list(range(6))
    assert len(rows) == 5


def test_order_depends_on_seed_and_step(tmp_path):
    train = read(write(tmp_path, [{"text": text} for text in texts(24)])).source.train
    run = train(0, 3)
    first = [next(run)["id"].tolist() for _ in range(12)]
    later = train(5, 3)
    assert [next(later)["id"].tolist() for _ in range(7)] == first[5:]
    other = train(0, 4)
    assert [next(other)["id"].tolist() for _ in range(12)] != first


def test_loss_is_on_completions_only(tmp_path):
    rows = [{"prompt": f"{text}?", "completion": f" {text[:4]}!"} for text in texts()]
    dataset = read(write(tmp_path, rows), max_length=64)
    found = sorted(
        text
        for split in dataset.source.evals
        for text in spell_rows(dataset, dataset.source.evals[split]())
    )
    assert found == sorted(spell(dataset, row["completion"]) for row in rows)
    assert sum(dataset.num_bytes.values()) == sum(len(r["completion"].encode()) for r in rows)


def test_long_completions_are_truncated_and_counted(tmp_path):
    rows = [{"prompt": "a", "completion": str(3**400)}] + [{"text": text} for text in texts()]
    splitting = SplitOptions(validation=1, test=1, split_seed=1)
    path = write(tmp_path, rows)
    dataset = read(path, splitting)
    cut = [line for line in dataset.summary if "1 documents truncated" in line]
    assert len(cut) == 1
    with pytest.raises(UserError, match=r"line 1 is longer than data.max_length = 16 tokens"):
        read(path, splitting, too_long="refuse")


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("a", "b" * 15), ("", "b" * 40)],  # the end of the first would be the 17th token
)
def test_a_lost_end_and_a_cut_completion_without_a_prompt_are_counted(tmp_path, prompt, completion):
    path = write(tmp_path, [{"prompt": prompt, "completion": completion}] * 9)
    options = {"bpe_size": 257, "packing": "pad"}  # no merges: a token is a byte
    dataset = read(path, **options)
    assert dataset.source.size == {"train": 5, "validation": 2, "test": 2}
    assert dataset.summary[0].endswith(", 5 documents truncated")
    with pytest.raises(UserError, match=r"is longer than data\.max_length"):
        read(path, too_long="refuse", **options)
    assert read(path, too_long="refuse", max_length=64, **options).source.size["train"] == 5


def test_two_tokenizers_read_the_same_text(tmp_path):
    path = write(tmp_path, [{"text": text} for text in texts()])
    dataset = read(path, packing="pad", second_bpe_size=300)
    for split in dataset.source.evals:
        own, other = (
            spell_rows(dataset, dataset.source.evals[split](), prefix) for prefix in ("", "second_")
        )
        assert own == other
    assert dataset.second.source.spec.vocab_size > dataset.source.spec.vocab_size
    assert "second_label" in dataset.source.spec.inputs


@pytest.mark.parametrize("sizes", [(280, 330), (330, 280)])
def test_two_tokenizers_truncate_completions_at_the_same_place(tmp_path, sizes):
    rows = [{"prompt": f"{number}:", "completion": text} for number, text in enumerate(texts())]
    options = {"packing": "pad", "bpe_size": sizes[0], "second_bpe_size": sizes[1]}
    dataset = read(write(tmp_path, rows), max_length=24, **options)
    for split in ("validation", "test"):
        first, second = (
            spell_rows(dataset, dataset.source.evals[split](), prefix) for prefix in ("", "second_")
        )
        assert first == second
        assert dataset.num_bytes[split] == sum(map(len, first))
    assert any("truncated" in line and "0 truncated" not in line for line in dataset.summary)
    with pytest.raises(UserError, match=r"is longer than data\.max_length = 24 tokens"):
        read(write(tmp_path, rows), max_length=24, too_long="refuse", **options)


def test_files_and_folders(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": texts()}), tmp_path / "all.parquet")
    lines = read(write(tmp_path, [{"text": text} for text in texts()])).source.digest
    assert read(str(tmp_path / "all.parquet")).source.digest == lines
    folder = tmp_path / "files"
    for number, text in enumerate(texts()):
        file = folder / ("train", "test")[number % 2] / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    dataset = read(str(folder), SplitOptions(validation=2))
    (own,) = (line for line in dataset.summary if line.startswith("test"))
    assert "test: 6 documents" in own
    splitting = SplitOptions(validation=2, test=2, limit=3)
    assert "train: 3 documents" in " ".join(read("stdlib", splitting).summary)


def test_the_vocabulary_is_cached(tmp_path):
    first = train_byte_level(texts(), 280)
    (file,) = (tmp_path / "cache").rglob("tokenizer.json")
    changed = file.read_text().replace(END, "<|ended|>")
    file.write_text(changed)
    assert tokenize.words(first)[0] == END
    assert tokenize.words(train_byte_level(texts(), 280))[0] == "<|ended|>"


def test_texts_that_are_divided_elsewhere_have_a_vocabulary_of_their_own():
    train_byte_level(["hello world "] * 40, 270)
    divided = train_byte_level(["hello w", "orld "] * 40, 270)
    assert divided.encoder.encode("orld ").tokens == ["orld", "Ġ"]


BAD = {
    "no JSON": ('{"text": "a"}\n{"text"', {}, r"bad.jsonl line 2 is not JSON"),
    "no keys": ('{"texts": "a"}\n', {}, r"line 1: give text, or prompt and completion; .* texts"),
    "no text": ('{"text": 3}\n', {}, r"line 1: text is '3'; it must be a text"),
    "half a surrogate": ('{"text": "\\ud83d"}\n', {}, "line 1: text is no Unicode text"),
    "empty completion": (
        '{"prompt": "a", "completion": " "}\n', {}, r"line 1: completion is empty; remove the row"
    ),
    "long prompt": (
        json.dumps({"prompt": "x y" * 40, "completion": "a"}) + "\n" + '{"text": "a"}\n' * 9,
        {},
        r"line 1: the prompt has \d+ tokens, but data.max_length is 16",
    ),
    "small vocabulary": ('{"text": "a"}\n' * 9, {"bpe_size": 200}, "data.bpe_size is 200; it must"),
    "two packed tokenizers": (
        '{"text": "a"}\n' * 9, {"second_bpe_size": 300}, "data.packing is pack, but two tokenizers"
    ),
    "second twice": (
        '{"text": "a"}\n' * 9, {"second_bpe_size": 300, "second_tokenizer": "x"}, "are both set"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(tmp_path, name):
    content, options, message = BAD[name]
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read(str(tmp_path / "bad.jsonl"), SplitOptions(validation=0, test=1), **options)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_changes_texts_is_told(tmp_path):
    vocabulary = tokenize.train_wordpiece(["the film"], 32)
    tokenize.save(vocabulary, tmp_path)
    path = write(tmp_path, [{"text": "The film"}] * 9)
    with pytest.warns(
        UserWarning, match=r"data.tokenizer does not keep texts: 'The film' becomes 'the film'"
    ):
        read(path, SplitOptions(validation=0, test=1), tokenizer=str(tmp_path))


def test_a_document_without_a_token_and_a_tokenizer_without_an_end(tmp_path):
    library = tokenize.load_library()
    words = library.Tokenizer(library.models.WordLevel({"alpha": 0}, unk_token="?"))
    words.pre_tokenizer = library.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    path = write(tmp_path, [{"text": "alpha"}] * 9)
    with pytest.raises(UserError, match="no token that ends a text"):
        read(path, tokenizer=str(tmp_path / "tokenizer.json"))
    words.add_special_tokens([END])
    words.normalizer = library.normalizers.Replace("beta", "")
    words.save(str(tmp_path / "tokenizer.json"))
    path = write(tmp_path, [{"text": "alpha"}] * 9 + [{"text": "beta"}])
    with pytest.raises(UserError, match=r"line 10 has no token; remove it"):
        read(path, tokenizer=str(tmp_path / "tokenizer.json"))
