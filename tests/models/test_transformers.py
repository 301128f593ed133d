"""Transformers: the reference library's outputs and files of every family, sizes, bad configs."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.io.huggingface_config import to_config, to_options
from kdjax.models.io.huggingface_folder import check_options
from kdjax.models.text import gpt_neo, llama
from kdjax.models.transformers import FAMILIES, VISION

HERE = pathlib.Path(__file__).resolve()
OWN = HERE.parents[1] / "golden"
SHARED = HERE.parents[2] / "../shared/golden/modern"
NAMES = (
    "distilbert", "roberta", "gpt2", "llama", "llama_scaled", "mistral", "qwen2", "qwen3", "t5",
    "vit", "deit",
)  # fmt: skip
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids", "image")
SIZES = {"vocab_size": 11, "num_layers": 2, "width": 8, "num_heads": 2, "max_length": 16}
IDS = {key: np.ones((1, 4), np.int32) for key in INPUTS[:2]}


def folder(name):
    path = OWN / name if (OWN / name).is_dir() else SHARED / name
    if not path.is_dir():
        pytest.skip(f"{name}: the reference networks are not beside this checkout")
    return path


def config_of(path):
    return json.loads((path / "config.json").read_text())


def apart(actual, expected, real=None):
    """The largest difference, relative to the largest value, at real tokens."""
    actual, expected = (np.asarray(x) if real is None else x[real] for x in (actual, expected))
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs_and_an_exact_way_back(name, tmp_path):
    path = folder(name)
    model, variables = models.load_huggingface(path)
    golden = np.load(path / "io.npz")
    batch = {key: golden[key] for key in INPUTS if key in golden.files}
    outputs = jax.jit(lambda v: model.apply(v, batch, train=False)[0])(variables)
    real = golden["attention_mask"] > 0 if "attention_mask" in golden.files else None
    decoded = name == "t5"  # whose decoder has no padding
    tokens = None if decoded else real
    # float32 on both sides, and weights of .2, larger than those of trained networks
    by_token = outputs.logits.ndim == 3
    assert apart(outputs.logits, golden["logits"], tokens if by_token else None) < 1e-5
    prefix = "decoder_hidden_" if decoded else "hidden_"
    for index, hidden in enumerate(golden["hidden_states"]):
        assert apart(outputs.features[f"{prefix}{index}"], hidden, tokens) < 1e-5
    for key, feature in (("cls_logits", "class_logits"), ("distillation_logits",) * 2):
        assert key not in golden.files or apart(outputs.features[feature], golden[key]) < 1e-5

    config, before = config_of(path), safetensors.numpy.load_file(path / "model.safetensors")
    family, options = to_options(config, "config.json")
    models.save_huggingface(tmp_path, {"name": family, **options}, variables)
    after = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert set(after) == set(before)
    for key, tensor in before.items():
        np.testing.assert_array_equal(after[key], tensor, err_msg=key)
    written = to_options(config_of(tmp_path), "config.json")
    assert written == (family, {**written[1], **options})
    check_options(tmp_path, {"name": family, **options})


# keys of published folders, which older releases of the reference library wrote
OLD = {
    "llama_scaled": {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2": {"rope_theta": 10000.0, "layer_types": None},
    "mistral": {"rope_theta": 10000.0, "rope_scaling": None},
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_keys_of_rotations_say_the_same(name):
    config = config_of(folder(name))
    family, new = to_options(config, "config.json")
    old = {key: value for key, value in {**config, **OLD[name]}.items() if value is not None}
    del old["rope_parameters"]
    make = FAMILIES[family].options
    assert make(**to_options(old, "config.json")[1]).complete() == make(**new).complete()


# of published networks: options, classes (of tokens: a number of answers), parameters
COUNTS = {
    "distilbert": ({"num_layers": 6, "width": 768, "num_heads": 12}, 2, 66_955_010),
    "roberta": ({"num_layers": 12, "width": 768, "num_heads": 12}, 2, 124_647_170),
    "gpt2": ({"num_layers": 12, "width": 768, "num_heads": 12}, 2, 124_439_808),
    "llama": (  # TinyLlama
        {"num_layers": 22, "width": 2048, "num_heads": 32, "kv_heads": 4, "ffn_width": 5632},
        2, 1_100_048_384,
    ),
    "mistral": (
        {"num_layers": 32, "width": 4096, "num_heads": 32, "kv_heads": 8, "ffn_width": 14336},
        2, 7_241_732_096,
    ),
    "qwen2": (
        {"num_layers": 24, "width": 896, "num_heads": 14, "kv_heads": 2, "ffn_width": 4864,
         "tied": True},
        2, 494_032_768,
    ),
    "qwen3": (
        {"num_layers": 28, "width": 1024, "num_heads": 16, "kv_heads": 8, "ffn_width": 3072,
         "tied": True},
        2, 596_049_920,
    ),
    "vit_b_16": ({}, 1000, 86_567_656),
    "vit_b_32": ({}, 1000, 88_224_232),
    "vit_tiny_patch16_224": ({}, 1000, 5_717_416),
    "vit_large_patch16_224": ({}, 1000, 304_326_632),
    "deit_small_patch16_224": ({}, 1000, 22_050_664),
    "deit_tiny_distilled_patch16_224": ({}, 1000, 5_910_800),
    "deit_base_distilled_patch16_224": ({}, 1000, 87_338_192),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_of_published_networks(name):
    options, classes, count = COUNTS[name]
    model = models.build(name, num_classes=classes, **options)
    choices = {key: np.ones((1, classes, 2), np.int32) for key in ("choice_ids", "choice_mask")}
    image = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)}
    batch = image if name in VISION else {**IDS, **choices}
    assert models.parameter_count(jax.eval_shape(model.init, jax.random.key(0), batch)) == count


def drawn(name, **options):
    """A network of tokens or images, and random variables, without compilation."""
    model = FAMILIES[name].factory(FAMILIES[name].options(**options))
    image = {"image": np.zeros((1, 8, 8, 1), np.float32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), {**IDS, **image})
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_padding_in_the_middle_changes_nothing(name):
    """A prompt is padded before its answer, so that positions count real tokens."""
    model, variables = drawn(name, **SIZES)
    apply = jax.jit(lambda v, b: model.apply(v, b, train=False)[0].logits)
    ids = np.array([[3, 5, 7, 2, 9]], np.int32)
    dense = {
        "input_ids": np.pad(ids, ((0, 0), (0, 2))),
        "attention_mask": np.array([[1] * 5 + [0] * 2]),
    }
    gap = np.array([0, 1, 2, 5, 6])
    mask, spread = (np.zeros((1, 7), np.int32) for _ in range(2))
    mask[:, gap], spread[:, gap] = 1, ids
    padded = apply(variables, {"input_ids": spread, "attention_mask": mask})
    np.testing.assert_allclose(padded[:, gap], apply(variables, dense)[:, :5], rtol=1e-4, atol=1e-4)


def test_a_qwen_with_windows_in_some_layers_says_which(tmp_path):
    config = config_of(folder("qwen3")) | {"use_sliding_window": True, "sliding_window": 3}
    kinds = ["sliding_attention", "full_attention"]
    options = to_options({**config, "layer_types": kinds}, "c")[1]
    assert (options["window"], options["layers"]) == (3, ("local", "global"))
    old = {key: x for key, x in config.items() if key != "layer_types"}
    assert to_options({**old, "max_window_layers": 1}, "c")[1]["layers"] == ("global", "local")
    complete = llama.LlamaOptions(**options, head_norm=True).complete()
    written = to_config("qwen3", {**vars(complete)})
    assert written["layer_types"] == kinds


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2}},
            "rope_type is 'yarn'; use",
        ),
        ("qwen3", {"rope_parameters": {"rope_type": "linear"}}, r"rope_scaling\.factor is None"),
        ("qwen3", {"quantization_config": {"bits": 4}}, "the weights are quantized"),
        ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("qwen3", {"num_key_value_heads": 3}, "kv_heads is 3: it must divide num_heads, 4"),
        ("qwen3", {"head_dim": 7}, "head_width is 7: it must be even"),
        ("deit", {"patch_size": 5}, "patch_size is 5: it must divide image_size, 16"),
        ("roberta", {"pad_token_id": 40}, "first_position is 41: it must be below max_length, 34"),
        ("roberta", {"is_decoder": True}, "is_decoder is true"),
    ],
)
def test_configs_that_cannot_be_built(name, change, message, tmp_path):
    path = folder(name)
    (tmp_path / "config.json").write_text(json.dumps({**config_of(path), **change}))
    (tmp_path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=message):
        models.load_huggingface(tmp_path)


def test_bfloat16_and_shards_are_read(tmp_path):
    path = folder("qwen3")
    tensors = safetensors.numpy.load_file(path / "model.safetensors")
    half = {key: x.astype(jax.numpy.bfloat16) for key, x in tensors.items()}
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    names = sorted(half)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        safetensors.numpy.save_file({name: half[name] for name in part}, tmp_path / shard)
    index = {name: shard for shard, part in shards.items() for name in part}
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": index}))
    _, variables = models.load_huggingface(tmp_path)
    word = variables.params["word"]["embedding"]
    assert word.dtype == np.float32
    np.testing.assert_array_equal(word, half["model.embed_tokens.weight"].astype(np.float32))
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    small = len(header).to_bytes(8, "little") + header + bytes(2)
    (tmp_path / "b.safetensors").write_bytes(small)
    with pytest.raises(UserError, match=r"of a type that is not read \(.*float8_e4m3fn.*bfloat16"):
        models.load_huggingface(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors: no such file"):
        models.load_huggingface(tmp_path)


@pytest.mark.parametrize("name", ["roberta", "deit"])
def test_a_new_head_and_parts_that_a_file_lacks(name, tmp_path):
    path = folder(name)
    tensors = safetensors.numpy.load_file(path / "model.safetensors")
    bare = {key: x for key, x in tensors.items() if "classifier" not in key}
    bare = {re.sub(r"^\w+\.", "", key): x for key, x in bare.items()}  # as of pre-training
    bare["pooler.dense.weight"] = np.zeros((24, 24), np.float32)  # not used
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    safetensors.numpy.save_file(bare, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: .*classifier"):
        models.load_huggingface(tmp_path)
    _, fresh = models.load_huggingface(tmp_path, num_classes=7, key=jax.random.key(0))
    _, first = models.load_huggingface(path)
    layers = ("fc", "pooler") if name == "roberta" else ("fc", "distillation_fc")
    for layer in layers:
        assert 0.01 < np.std(fresh.params[layer]["kernel"]) < 0.04
    assert fresh.params["fc"]["kernel"].shape == (24, 7)
    rest = {key: x for key, x in fresh.params.items() if key not in layers}
    jax.tree.map(np.testing.assert_array_equal, rest, {key: first.params[key] for key in rest})
    _, tuned = models.load_huggingface(path, num_classes=7, key=jax.random.key(0))
    same = name == "roberta" and np.array_equal(
        tuned.params["pooler"]["kernel"], first.params["pooler"]["kernel"]
    )
    assert same == (name == "roberta")


def test_networks_that_hugging_face_has_not():
    _, variables = drawn("llama", **SIZES, window=3)
    for options, message in (
        ({"name": "llama", **SIZES, "window": 3}, "a llama of Hugging Face has window None"),
        ({"name": "mistral", **SIZES, "layers": ("local", "global")}, "layers of one kind"),
        ({"name": "gpt2", **SIZES, "layers": ("local", "global")}, "global layers only"),
        ({"name": "distilbert", **SIZES, "pooler": "tanh"}, "has pooler 'relu'"),
        ({"name": "roberta", **SIZES, "pooler_dropout": 0.3}, "set pooler_dropout to head_dropout"),
    ):
        with pytest.raises(UserError, match=message):
            models.save_huggingface("nowhere", options, variables)
    assert gpt_neo.GptNeoOptions(num_layers=3).complete().layers == ("global", "local", "global")
