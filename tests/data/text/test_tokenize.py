"""WordPiece against BERT's tokens, truncation, trained vocabularies, other tokenizers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kdjax.data.text import tokenize
from kdjax.data.text.check_tokenizer import check_tokenizer
from kdjax.data.text.tasks import Prompt
from kdjax.errors import UserError

ROOT = Path(__file__).parents[3]
SHARED = ROOT / "../shared"
# 54 handwritten texts tokenized by transformers 4.57.6's BertTokenizer, uncased; the vocabulary is
# the part of BERT's that they use, in its order (unused pieces do not change the longest match).
GOLDEN = json.loads((ROOT / "tests/golden/wordpiece.json").read_text(encoding="utf-8"))
SMALL = [*tokenize.SPECIAL, *"abcdefgh", *(f"##{c}" for c in "abcdefgh")]
TEXTS = ["the cat sat on the mat", "a cat and a hat", "the Hat of the cats", "naïve café 東京!"]


def row(encoded, number):
    part = slice(encoded.start[number], encoded.start[number + 1])
    return encoded.ids[part].tolist(), encoded.types[part].tolist()


class TestWordpiece:
    @pytest.mark.parametrize("golden", GOLDEN["rows"], ids=lambda actual: actual["kind"])
    def test_equals_bert(self, golden):
        tokenizer = tokenize.from_words(GOLDEN["vocabulary"])
        actual = tokenize.encode(tokenizer, [tuple(golden["texts"])], max_length=128)
        assert row(actual, 0) == (golden["ids"], golden["types"])

    def test_equals_bert_on_every_golden_row(self):
        golden, vocabulary = SHARED / "golden/transformers", SHARED / "data/bert_uncased_vocab.txt"
        if not golden.is_dir() or not vocabulary.is_file():
            pytest.skip("needs the golden tokens and BERT's vocabulary in ../shared")
        sentences = json.loads((golden / "sentences.json").read_text(encoding="utf-8"))
        tokens = np.load(golden / "tokens.npz")
        texts = [(r["text"],) if r["pair"] is None else (r["text"], r["pair"]) for r in sentences]
        actual = tokenize.encode(tokenize.wordpiece(vocabulary), texts, max_length=128)
        assert len(sentences) == 200
        for number in range(len(sentences)):
            ids, types = row(actual, number)
            assert ids == tokens["input_ids"][number, : len(ids)].tolist()
            assert types == tokens["token_type_ids"][number, : len(ids)].tolist()
            assert len(ids) == tokens["attention_mask"][number].sum()
        assert np.array_equal(actual.cut, tokens["full_length"] > 128)

    def test_literal_special_tokens_are_text(self):
        tokenizer = tokenize.from_words([*SMALL, "[", "]", "sep"])
        ids, _ = row(tokenize.encode(tokenizer, [("a [SEP] b",)], max_length=16), 0)
        words = tokenize.words(tokenizer)
        assert [words[i] for i in ids] == ["[CLS]", "a", "[", "sep", "]", "b", "[SEP]"]

    def test_texts_beyond_one_chunk_keep_their_order(self, monkeypatch):
        monkeypatch.setattr(tokenize, "_CHUNK", 2)
        tokenizer = tokenize.from_words(SMALL)
        actual = tokenize.encode(tokenizer, [("a " * n,) for n in range(7)], max_length=16)
        assert np.diff(actual.start).tolist() == [n + 2 for n in range(7)]


CASED = [*tokenize.SPECIAL, "Ann", "ann", "met", "é", "e", "##lan", "東", "東京"]


class TestSettings:
    def ids(self, folder, text, **settings):
        (folder / "vocab.txt").write_text("\n".join(CASED), encoding="utf-8")
        if settings:
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = tokenize.wordpiece(folder)
        encoded = row(tokenize.encode(tokenizer, [(text,)], max_length=16), 0)[0]
        words = tokenize.words(tokenizer)
        return [words[i] for i in encoded[1:-1]]

    def test_case_accents_and_chinese_characters(self, tmp_path):
        text = "Ann met élan 東京"
        cased = {"do_lower_case": False}
        found = self.ids(tmp_path, text, **cased)
        assert found == ["Ann", "met", "é", "##lan", "東", "[UNK]"]
        assert self.ids(tmp_path, text, do_lower_case=True)[:4] == ["ann", "met", "e", "##lan"]
        found = self.ids(tmp_path, text, **cased, strip_accents=True, tokenize_chinese_chars=False)
        assert found == ["Ann", "met", "e", "##lan", "東京"]
        kept = tokenize.wordpiece(tmp_path)
        tokenize.save(kept, tmp_path / "export")
        again = tokenize.wordpiece(tmp_path / "export")
        check_tokenizer(kept, tmp_path / "export")
        assert (again.settings, again.settings["do_lower_case"]) == (kept.settings, False)

    def test_a_vocabulary_with_upper_case_is_cased(self, tmp_path):
        assert self.ids(tmp_path, "Ann ann") == ["Ann", "ann"]
        # one stray word in many is not enough
        many = [*CASED, *(f"w{number}" for number in range(200))]
        (tmp_path / "vocab.txt").write_text("\n".join(many), encoding="utf-8")
        assert not tokenize.wordpiece(tmp_path).settings

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"do_lower_case": "false"}, "do_lower_case is 'false'; it must be true"),
            ({"do_basic_tokenize": False}, "not supported"),
            ({"never_split": ["x"]}, "not supported"),
            ([1], "cannot be read"),
        ],
    )
    def test_settings_that_are_not_obeyed_are_refused(self, settings, says, tmp_path):
        (tmp_path / "vocab.txt").write_text("\n".join(CASED), encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(UserError, match=f"tokenizer_config.json.*{says}"):
            tokenize.wordpiece(tmp_path)

    def test_a_tokenizer_json_obeys_them_too(self, tmp_path):
        tokenizer = tokenize.from_words([*CASED, "<end>", "<fill>"])
        tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
        assert tokenize.from_file(tmp_path).end_id == 3
        settings = {
            "do_lower_case": False,
            "eos_token": "<end>",
            "pad_token": {"content": "<fill>"},
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        found = tokenize.from_file(tmp_path)
        assert (found.end_id, found.pad_id) == (len(CASED), len(CASED) + 1)
        assert row(tokenize.encode(found, [("Ann",)], max_length=8), 0)[0] == [2, 5, 3]
        tokenize.save(found, tmp_path / "export")
        check_tokenizer(found, tmp_path / "export")
        assert tokenize.from_file(tmp_path / "export").end_id == found.end_id

    def test_a_network_that_has_read_otherwise_is_refused(self, tmp_path):
        data = tokenize.from_words(SMALL)
        with pytest.warns(UserWarning, match="holds no vocabulary; the data's is assumed"):
            check_tokenizer(data, tmp_path)
        tokenize.save(data, tmp_path)
        check_tokenizer(data, tmp_path)
        others = {
            "order": tokenize.from_words([*SMALL[:5], *SMALL[5:][::-1]]),
            "case": tokenize.from_words(SMALL, settings={"do_lower_case": False}),
            "accents": tokenize.from_words(SMALL, settings={"strip_accents": False}),
            "chinese": tokenize.from_words([*SMALL, "東京", "東", "京"]),
        }
        chinese = {"tokenize_chinese_chars": False}
        pairs = [(data, other) for name, other in others.items() if name != "chinese"]
        pairs.append((others["chinese"], tokenize.from_words(tokenize.words(others["chinese"]),
                                                             settings=chinese)))  # fmt: skip
        for number, (one, other) in enumerate(pairs):
            tokenize.save(other, tmp_path / str(number))
            with pytest.raises(
                UserError, match=rf"another vocabulary.*data\.vocabulary=.*{number}"
            ):
                check_tokenizer(one, tmp_path / str(number))


class TestCutting:
    @pytest.mark.parametrize(("first", "second"), [(3, 4), (20, 4), (4, 20), (13, 13), (30, 9)])
    def test_the_longer_text_of_a_pair_is_truncated(self, first, second):
        tokenizer = tokenize.from_words(SMALL)
        actual = tokenize.encode(tokenizer, [("a " * first, "b " * second)], max_length=16)
        ids, types = row(actual, 0)
        counts = (ids.count(5), ids.count(6))
        assert bool(actual.cut[0]) == (first + second > 13)
        assert len(ids) == min(16, first + second + 3)
        assert types == [0] * (counts[0] + 2) + [1] * (counts[1] + 1)
        for own, other, size in ((*counts, first), (*counts[::-1], second)):
            assert own == size or own >= other - 1, "the shorter side was cut"

    def test_the_end_of_a_single_text_is_truncated(self):
        actual = tokenize.encode(tokenize.from_words(SMALL), [("a b c d e f g h",)], max_length=6)
        assert row(actual, 0)[0] == [2, 5, 6, 7, 8, 3]

    def test_the_end_of_the_long_part_of_a_prompt_is_truncated_first(self):
        tokenizer = tokenize.from_words(SMALL)
        prompts = [Prompt("a ", "b c d e", " f g"), Prompt("a ", "b", " f g")]
        actual = tokenize.encode_prompts(tokenizer, prompts, max_length=7)
        assert row(actual, 0)[0] == [2, 5, 6, 7, 10, 11, 3]  # a, b c, f g
        assert row(actual, 1)[0] == [2, 5, 6, 10, 11, 3]
        assert actual.cut.tolist() == [True, False]

    def test_the_start_of_the_rest_of_a_prompt_is_truncated_next(self):
        prompts = [Prompt("a ", "b c", " d e f")]
        actual = tokenize.encode_prompts(tokenize.from_words(SMALL), prompts, max_length=4)
        assert row(actual, 0)[0] == [2, 9, 10, 3]  # e f

    def test_answers_have_an_end_token_and_padding(self):
        tokenizer = tokenize.from_words(SMALL)
        ids, mask = tokenize.encode_answers(tokenizer, [("a", "bc d"), ("d", "a")])
        assert ids.tolist() == [
            [[5, 3, 0, 0], [6, 15, 8, 3]],
            [[8, 3, 0, 0], [5, 3, 0, 0]],
        ]
        assert np.array_equal(mask, ids > 0)
        assert (ids.dtype, mask.dtype) == (np.int32, np.int32)


class TestTraining:
    def test_a_saved_vocabulary_is_read_back_unchanged(self, tmp_path):
        trained = tokenize.train_wordpiece(TEXTS, 80)
        file = tokenize.save(trained, tmp_path / "new")
        assert file.name == "vocab.txt"
        for path in (file, file.parent):
            again = tokenize.wordpiece(path)
            assert tokenize.words(again) == tokenize.words(trained)
            assert again[1:] == trained[1:]

    def test_training_texts_have_no_unknown_tokens(self):
        trained = tokenize.train_wordpiece(TEXTS, 80)
        actual = tokenize.encode(trained, [(text,) for text in TEXTS], max_length=64)
        words = tokenize.words(trained)
        assert words[:5] == tokenize.SPECIAL
        assert len(words) <= 80
        assert 1 not in actual.ids
        assert {"the", "cat"} <= set(words)
        assert "##!" not in words, "punctuation stands alone"

    def test_a_small_vocabulary_has_the_most_frequent_characters(self):
        trained = tokenize.train_wordpiece(TEXTS, 32)
        assert trained.vocab_size <= 32
        assert {"a", "t", "h", "e"} <= set(tokenize.words(trained))

    def test_training_is_deterministic(self):
        # The library alone is not deterministic: the order of its hash maps varies.
        first, *others = (tokenize.words(tokenize.train_wordpiece(TEXTS, 60)) for _ in range(6))
        assert all(actual == first for actual in others)

    def test_a_vocabulary_that_is_too_small_is_an_error(self):
        with pytest.raises(UserError, match="vocabulary_size is 8; it must be >= 32"):
            tokenize.train_wordpiece(TEXTS, 8)


class TestFromFile:
    @pytest.fixture
    def folder(self, tmp_path):
        import tokenizers as library

        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=300,
            show_progress=False,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(TEXTS, trainer)
        tokenizer.enable_padding(length=50)  # as in some published files
        tokenizer.enable_truncation(2)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return tmp_path

    def test_bytes(self, folder):
        tokenizer = tokenize.from_file(folder)
        assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.plain) == (0, 0, False)
        actual = tokenize.encode_prompts(tokenizer, [Prompt("", TEXTS[3], "")], max_length=64)
        assert tokenizer.encoder.decode(actual.ids.tolist()) == TEXTS[3]
        ids, mask = tokenize.encode_answers(tokenizer, [("hat", "the cat")])
        answer = ids[0, 1][mask[0, 1] > 0]
        assert tokenizer.encoder.decode(answer.tolist()) == " the cat"
        assert answer[-1] == tokenizer.end_id

    def test_an_answer_of_a_tokenizer_that_prepends_a_space_has_one(self):
        import tokenizers as library

        pieces = ["<unk>", "▁", "▁Answer:", "▁hat", "h"]
        encoder = library.Tokenizer(
            library.models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0)
        )
        replace = library.normalizers.Replace(" ", "▁")
        prepend = library.normalizers.Prepend("▁")
        encoder.normalizer = library.normalizers.Sequence([prepend, replace])  # as Llama 2's
        tokenizer = tokenize.Tokenizer(encoder, len(pieces), 0, None, False)
        ids, _ = tokenize.encode_answers(tokenizer, [("hat",)])
        assert ids.tolist() == [[[3]]]

    def test_a_tokenizer_is_saved_unchanged(self, folder, tmp_path):
        tokenizer = tokenize.from_file(folder / "tokenizer.json")
        file = tokenize.save(tokenizer, tmp_path / "copy")
        assert tokenize.words(tokenize.from_file(file)) == tokenize.words(tokenizer)


class TestErrors:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["a", "b"], r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
            ([*SMALL, "a"], r"'a' of line 6 is repeated"),
        ],
    )
    def test_vocabulary(self, tmp_path, lines, message):
        file = tmp_path / "vocab.txt"
        file.write_text("\n".join(lines))
        with pytest.raises(UserError, match=message):
            tokenize.wordpiece(file)

    def test_missing_files(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.vocabulary=.* give a vocab\.txt"):
            tokenize.wordpiece(tmp_path)
        with pytest.raises(UserError, match=r"data\.tokenizer=.* give a tokenizer\.json"):
            tokenize.from_file(tmp_path / "none")

    def test_other_files_are_errors(self, tmp_path):
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(UserError, match=r"is not a tokenizer\.json"):
            tokenize.from_file(tmp_path)
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match="cannot be read"):
            tokenize.wordpiece(tmp_path)

    def test_a_missing_library_is_an_error(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(UserError, match=r"pip install 'kdjax\[text\]'"):
            tokenize.from_words(SMALL)
