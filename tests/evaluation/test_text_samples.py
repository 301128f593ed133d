"""Texts that networks write: prompts and references of the data, in the tokens of each network."""

import jax
import pytest

from kdjax import models
from kdjax.data import BatchOptions, LanguageOptions, SplitOptions, example_batch, read_language
from kdjax.evaluation.language_model import read_entry
from kdjax.evaluation.text_samples import Writer, write_texts
from tests.data import tiny_language

SPLITTING = SplitOptions(validation=2, test=2)


def writer(dataset, entry):
    size = (dataset.second or dataset).source.spec.vocab_size
    options = {"vocab_size": size, "width": 4, "num_layers": 1, "num_heads": 2}
    model = read_entry(models.build_language_model("llama", num_classes=size, **options), entry)
    variables = jax.jit(model.init)(jax.random.key(0), example_batch(dataset.source))
    return Writer(model, variables, entry)


@pytest.mark.parametrize("prompts", [True, False])
def test_prompts_and_references_are_those_of_the_data(tmp_path, monkeypatch, prompts):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = str(tiny_language.write(tmp_path, prompts))
    options = LanguageOptions(path, bpe_size=280, max_length=48, second_bpe_size=290, packing="pad")
    dataset = read_language(options, BatchOptions(2, 2), SPLITTING)
    entries = {"student": "image", "teacher": "second"} if prompts else {"student": "image"}
    written = write_texts(dataset, {role: writer(dataset, e) for role, e in entries.items()})
    assert written.keys() == entries.keys()
    texts = [row.get("text", "") or row["prompt"] + row["completion"]
             for row in tiny_language.rows(prompts)]  # fmt: skip
    for samples in written.values():
        assert len(samples) == 2
        for sample in samples:
            assert sample["prompt"] + sample["reference"] in texts
            assert sample["prompt"].endswith("is") or not prompts
            assert isinstance(sample["text"], str)
