"""`python -m kdjax generate` from an export and from a Hugging Face folder."""

import json

import jax
import numpy as np
import pytest
import tokenizers

from kdjax import cli, models
from kdjax.models.io import export
from kdjax.models.transformers import FAMILIES

END, WORDS = "<|endoftext|>", 270
SIZES = {"vocab_size": WORDS, "num_layers": 1, "width": 8, "num_heads": 2, "max_length": 32}
PROMPTS = ["def f(x):", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write one llama as an export and as a folder of Hugging Face, with a byte-level BPE."""
    root = tmp_path_factory.mktemp("decoders")
    options = FAMILIES["llama"].options(**SIZES)
    model = FAMILIES["llama"].factory(options)
    batch = {name: np.ones((1, 2), np.int32) for name in ("input_ids", "attention_mask")}
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    inputs = dict.fromkeys(("input_ids", "attention_mask"), ((24,), "int32"))
    more = dict.fromkeys(("choice_ids", "choice_mask"), ((2, 4), "int32"))
    described = {"num_classes": 2, "shape": [32], "inputs": {**inputs, **more}}
    export.save(root / "export", variables, {"model": {"name": "llama", **SIZES}, **described})
    models.save_huggingface(root / "huggingface", {"name": "llama", **SIZES}, variables)
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE())
    encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator(["def f(x): return x"] * 4, trainer)
    for name in ("export", "huggingface"):
        encoder.save(str(root / name / "tokenizer.json"))
    return root


def run(folder, capsys, *flags):
    argv = ["generate", f"--model={folder}", "--max-new-tokens=6", *flags]
    assert cli.main(argv) == 0
    return capsys.readouterr().out


def test_an_export_and_a_folder_of_hugging_face_continue_alike(folders, capsys):
    flags = ["--temperature=0.8", "--seed=3", "--prompt", *PROMPTS]
    texts = [run(folders / name, capsys, *flags) for name in ("export", "huggingface")]
    assert texts[0] == texts[1]
    first, _, second = texts[0].partition("\n\n")
    assert first.startswith("def f(x):")
    assert len(first) > len("def f(x):")
    assert second.strip()
    assert run(folders / "export", capsys, "--seed=4", "--prompt", *PROMPTS) != texts[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "a", "--top-p=0"], "top_p is 0.0; it must be in (0, 1]"),
        (["--prompt", "a", "--max-new-tokens=40"], "tokens, but the network has 32 positions"),
    ],
)
def test_mistakes_are_one_line(folders, capsys, flags, message):
    assert cli.main(["generate", f"--model={folders / 'export'}", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_network_that_generates_no_text(tmp_path, capsys):
    described = {"format": export.FORMAT, "model": {"name": "mlp"}, "num_classes": 2, "shape": [4]}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert cli.main(["generate", f"--model={tmp_path}", "--prompt", "a"]) == 2
    assert "holds a mlp, which generates no text; there are gpt_neo" in capsys.readouterr().err
