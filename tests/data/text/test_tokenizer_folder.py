"""Tokenizers of folders: every kind of file, settings that are obeyed, files that are missing."""

import json

import pytest
import tokenizers as library

from kdjax.data.text import tokenize
from kdjax.data.text.check_tokenizer import check_tokenizer
from kdjax.data.text.tasks import Prompt
from kdjax.data.text.tokenizer_folder import byte_level, has_tokenizer, read_tokenizer
from kdjax.errors import UserError

TEXTS = ["the cat sat on the mat", "a cat and a hat", "the Hat of the cats", "naïve café 東京!"]
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def ids_of(tokenizer, *text, max_length=32):
    return tokenize.encode(tokenizer, [text], max_length=max_length).ids.tolist()


def bpe(folder, special, settings=None):
    """Write vocab.json and merges.txt, as of GPT-2 or RoBERTa."""
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        library.trainers.BpeTrainer(
            vocab_size=300, show_progress=False, special_tokens=list(special),
            initial_alphabet=alphabet,
        ),
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    tokenizer.model.save(str(folder))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


@pytest.fixture
def unigram(tmp_path):
    """Write a tokenizer.json of Unigram, as T5 and Llama have, with tokens around a text."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁a", -2.0), ("b", -2.0)]
    tokenizer = library.Tokenizer(library.models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


class TestByteLevel:
    def test_gpt2_has_no_tokens_around_a_text(self, tmp_path):
        trained = bpe(tmp_path / "gpt2", ["<|endoftext|>"])
        tokenizer = read_tokenizer(tmp_path / "gpt2", "data.tokenizer")
        assert ids_of(tokenizer, TEXTS[3]) == trained.encode(TEXTS[3]).ids
        assert (tokenizer.end_id, tokenizer.pad_id) == (0, 0)
        assert ids_of(tokenizer, "a<|endoftext|>")[-1] == 0
        file = tokenize.save(tokenizer, tmp_path / "copy")
        assert file.name == "tokenizer.json"
        assert ids_of(read_tokenizer(file, "data.tokenizer"), TEXTS[2]) == ids_of(
            tokenizer, TEXTS[2]
        )
        check_tokenizer(tokenizer, tmp_path / "gpt2")

    def test_roberta_has_them_and_one_kind_of_segment(self, tmp_path):
        trained = bpe(tmp_path / "roberta", ROBERTA, {"add_prefix_space": True})
        tokenizer = byte_level(tmp_path / "roberta/vocab.json")
        first, second = (trained.encode(f" {x}").ids for x in ("cat", "hat"))
        encoded = tokenize.encode(tokenizer, [("cat", "hat")], max_length=32)
        assert encoded.ids.tolist() == [0, *first, 2, 2, *second, 2]
        assert not encoded.types.any()
        assert (tokenizer.pad_id, tokenizer.end_id) == (1, 2)

    def test_files_that_do_not_belong_together(self, tmp_path):
        bpe(tmp_path / "one", ROBERTA)
        (tmp_path / "one/merges.txt").write_text("#version: 0.2\nq zz\n")
        with pytest.raises(UserError, match=r"vocab\.json and merges\.txt are no byte-level BPE"):
            byte_level(tmp_path / "one/vocab.json")
        (tmp_path / "one/merges.txt").unlink()
        with pytest.raises(UserError, match=r"merges\.txt does not exist; a vocab\.json needs it"):
            byte_level(tmp_path / "one/vocab.json")

    def test_another_way_of_splitting_texts_is_refused(self, tmp_path):
        bpe(tmp_path / "qwen", ROBERTA, {"tokenizer_class": "Qwen2Tokenizer"})
        with pytest.raises(UserError, match=r"of a Qwen2Tokenizer, which is read through its"):
            byte_level(tmp_path / "qwen/vocab.json")


class TestSettings:
    def test_tokens_around_the_texts_of_a_llama(self, unigram):
        table = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}

        def ids(**settings):
            (unigram / "tokenizer_config.json").write_text(json.dumps({**table, **settings}))
            return ids_of(read_tokenizer(unigram, "data.tokenizer"), "ab", "a")

        assert ids() == [4, 5, 4]
        assert ids(add_bos_token=True) == [1, 4, 5, 1, 4]
        assert ids(add_bos_token=False, add_eos_token=True) == [4, 5, 2, 4, 2]
        assert ids(add_bos_token=True, tokenizer_class="PreTrainedTokenizerFast") == [4, 5, 4]
        with pytest.raises(UserError, match="names the token '<x>', which is no token"):
            ids(add_bos_token=True, bos_token={"content": "<x>"})
        with pytest.raises(UserError, match="add_bos_token is 'yes'; it must be true"):
            ids(add_bos_token="yes")

    def test_the_side_that_is_truncated(self, unigram):
        tokenizer = read_tokenizer(unigram, "data.tokenizer")
        (unigram / "tokenizer_config.json").write_text('{"truncation_side": "left"}')
        left = read_tokenizer(unigram, "data.tokenizer")
        assert ids_of(tokenizer, "abbb a", max_length=3) == [4, 5, 5]
        assert ids_of(left, "abbb a", max_length=3) == [5, 5, 4]
        prompt = [Prompt("b ", "a ab abb", " a")]
        rows = [
            tokenize.encode_prompts(t, prompt, max_length=5).ids.tolist() for t in (tokenizer, left)
        ]
        assert rows[0] != rows[1]
        (unigram / "tokenizer_config.json").write_text('{"truncation_side": "middle"}')
        with pytest.raises(UserError, match="truncation_side is 'middle'; it must be left or"):
            read_tokenizer(unigram, "data.tokenizer")

    def test_special_tokens_map_names_tokens_that_the_config_does_not(self, unigram):
        (unigram / "special_tokens_map.json").write_text('{"pad_token": "b", "eos_token": "▁a"}')
        (unigram / "tokenizer_config.json").write_text('{"eos_token": "</s>", "pad_token": null}')
        tokenizer = read_tokenizer(unigram, "data.tokenizer")
        assert (tokenizer.pad_id, tokenizer.end_id) == (5, 2)


def test_either_key_reads_any_folder(unigram, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*tokenize.SPECIAL, "a"]))
    assert read_tokenizer(tmp_path, "data.vocabulary").plain
    assert not read_tokenizer(tmp_path, "data.tokenizer").plain
    (tmp_path / "vocab.txt").unlink()
    assert not read_tokenizer(tmp_path, "data.vocabulary").plain
    assert has_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path):
    assert not has_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"data\.tokenizer=.* holds no tokenizer\.json, vocab\.txt"):
        read_tokenizer(tmp_path, "data.tokenizer")
    (tmp_path / "spiece.model").touch()
    with pytest.raises(UserError, match=r"holds spiece\.model, which is read through its token"):
        read_tokenizer(tmp_path, "data.vocabulary")
