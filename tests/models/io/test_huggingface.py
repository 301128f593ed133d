"""Folders of the reference library: round trips, old names, errors, layer selection."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.io.huggingface_config import class_names, to_options
from kdjax.models.io.huggingface_folder import check_options, read_class_names
from kdjax.models.text.gpt_neo import GptNeoOptions, gpt_neo
from kdjax.types import Variables

HERE = pathlib.Path(__file__).resolve()
OWN = HERE.parents[2] / "golden"
GOLDEN = OWN / "bert_reg1"
SHARED = HERE.parents[3] / "../shared/golden/transformers"
NAMES = ["bert_reg1", "t5_unscaled", "bert_cls3", "t5_v10", "t5_v11", "gpt_neo"]
SMALL = {
    "bert": {"vocab_size": 9, "num_layers": 2, "width": 8, "num_heads": 2, "max_length": 6},
    "t5": {"vocab_size": 9, "num_layers": 2, "width": 8, "num_heads": 2, "version": "1.0"},
    "gpt_neo": {"vocab_size": 9, "num_layers": 4, "width": 8, "num_heads": 2, "max_length": 9},
}


def folder(name):
    path = OWN / name if (OWN / name).is_dir() else SHARED / name
    if not path.is_dir():
        pytest.skip(f"{name}: the reference networks are not beside this checkout")
    return path


def tensors_of(path):
    return safetensors.numpy.load_file(path / "model.safetensors")


def write_folder(tmp_path, *, config=None, tensors=None):
    """Write a copy of the small BERT with changes; None omits a key or tensor."""
    settings = {**json.loads((GOLDEN / "config.json").read_text()), **(config or {})}
    actual = {**tensors_of(GOLDEN), **(tensors or {})}
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in settings.items() if v != "-"})
    )
    first_layers = {k: np.ascontiguousarray(v) for k, v in actual.items() if v is not None}
    safetensors.numpy.save_file(first_layers, tmp_path / "model.safetensors")
    return tmp_path


def init(name, **options):
    model = models.build(name, num_classes=2, **{**SMALL[name], **options})
    ids = {k: np.zeros((1, 4), np.int32) for k in ("input_ids", "attention_mask", "token_type_ids")}
    choices = {k: np.zeros((1, 2, 2), np.int32) for k in ("choice_ids", "choice_mask")}
    return jax.jit(model.init)(jax.random.key(0), {**ids, **choices})


def drawn(name, **options):
    """Random variables, without the compilation of `init`."""
    ids = {
        k: jax.ShapeDtypeStruct((1, 4), np.int32)
        for k in ("input_ids", "attention_mask", "token_type_ids")
    }
    choices = {k: jax.ShapeDtypeStruct((1, 2, 2), np.int32) for k in ("choice_ids", "choice_mask")}
    model = models.build(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), {**ids, **choices})
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", NAMES)
def test_writing_back_gives_the_same_tensors(name, tmp_path):
    path = folder(name)
    _, variables = models.load_huggingface(path)
    config = json.loads((path / "config.json").read_text())
    models.save_huggingface(tmp_path / "new", config, variables)
    before, after = tensors_of(path), tensors_of(tmp_path / "new")
    assert set(before) == set(after)
    for key, tensor in before.items():
        np.testing.assert_array_equal(after[key], tensor, err_msg=key)
    again = json.loads((tmp_path / "new/config.json").read_text())
    assert config.items() <= again.items()


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_read_back_with_its_options(name, tmp_path):
    variables = init(name)
    options = SMALL[name] | ({"num_classes": 2} if name == "bert" else {})
    models.save_huggingface(tmp_path, {"name": name, **options}, variables)
    _, loaded = models.load_huggingface(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, variables, loaded)
    config = json.loads((tmp_path / "config.json").read_text())
    assert options.items() <= to_options(config, "config.json")[1].items()


@pytest.mark.parametrize(
    ("tied", "scaled"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_head_and_scale_of_a_t5_are_apart(tied, scaled, tmp_path):
    options = {**SMALL["t5"], "tied": tied, "scale_outputs": scaled}
    variables = init("t5", tied=tied, scale_outputs=scaled)
    models.save_huggingface(tmp_path, {"name": "t5", **options}, variables)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["scale_decoder_outputs"]) == (tied, scaled)
    check_options(tmp_path, {"name": "t5", **options})
    with pytest.raises(UserError, match=f"has scale_outputs {scaled}, the model {not scaled}"):
        check_options(tmp_path, {"name": "t5", **options, "scale_outputs": not scaled})
    odd = {**config, "decoder_start_token_id": 2}
    models.save_huggingface(tmp_path / "odd", odd, variables)
    with pytest.raises(UserError, match="decoder_start_token_id is 2"):
        check_options(tmp_path / "odd", {"name": "t5", **options})
    models.save_huggingface(tmp_path / "again", config, variables)
    assert json.loads((tmp_path / "again/config.json").read_text()) == config


def test_options_that_no_shape_shows(tmp_path):
    config = json.loads((GOLDEN / "config.json").read_text())
    said = {"name": "bert", **to_options(config, "config.json")[1]}
    check_options(GOLDEN, said)
    for option, value in {"num_heads": 4, "activation": "relu", "epsilon": 1e-5}.items():
        with pytest.raises(UserError, match=f"has {option} .*, the model {value!r}"):
            check_options(GOLDEN, {**said, option: value})
    with pytest.raises(UserError, match="holds a bert, not a t5"):
        check_options(GOLDEN, {"name": "t5"})
    said = {"name": "gpt_neo", **SMALL["gpt_neo"]}
    models.save_huggingface(tmp_path, said, init("gpt_neo"))
    check_options(tmp_path, {**said, "num_layers": 2}, (0, 1))
    check_options(tmp_path, {**said, "num_layers": 2, "layers": ("local", "local")}, (1, 3))
    with pytest.raises(UserError, match=r"has layers \('local', 'local'\)"):
        check_options(tmp_path, {**said, "num_layers": 2}, (1, 3))


def test_both_writers_configs_of_an_untied_head(tmp_path):
    path = folder("t5_v11")
    newer = json.loads((path / "config.transformers5.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(newer))
    (tmp_path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    assert newer["tie_word_embeddings"]  # the weight file differs
    newer_variables, variables = (models.load_huggingface(f)[1] for f in (tmp_path, path))
    jax.tree.map(np.testing.assert_array_equal, newer_variables, variables)
    assert "lm_head" in variables.params
    # a copy of the embedding is not a separate head
    tensors = tensors_of(path)
    tensors["lm_head.weight"] = tensors["shared.weight"].copy()
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert "lm_head" not in models.load_huggingface(tmp_path)[1].params
    settings = {**newer, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"missing: lm_head\.weight"):
        models.load_huggingface(tmp_path)


def test_old_names_buffers_and_files_without_head(tmp_path):
    before = tensors_of(GOLDEN)
    norm = "bert.embeddings.LayerNorm"
    changed = {
        f"{norm}.weight": None,
        f"{norm}.bias": None,
        f"{norm}.gamma": before[f"{norm}.weight"],
        f"{norm}.beta": before[f"{norm}.bias"],
        "bert.embeddings.position_ids": np.arange(32)[None],
    }
    _, expected = models.load_huggingface(GOLDEN)
    _, actual = models.load_huggingface(write_folder(tmp_path, tensors=changed))
    jax.tree.map(np.testing.assert_array_equal, expected, actual)

    bare = {key.removeprefix("bert."): x for key, x in before.items() if "classifier" not in key}
    safetensors.numpy.save_file(bare, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="missing: classifier"):
        models.load_huggingface(tmp_path)
    _, fresh = models.load_huggingface(tmp_path, num_classes=4, key=jax.random.key(1))
    assert fresh.params["fc"]["kernel"].shape == (24, 4)
    assert 0.01 < np.std(fresh.params["fc"]["kernel"]) < 0.03
    rest = {key: x for key, x in fresh.params.items() if key != "fc"}
    jax.tree.map(np.testing.assert_array_equal, rest, {key: expected.params[key] for key in rest})


def test_an_untied_head_that_equals_the_embedding(tmp_path):
    options = {"vocab_size": 9, "num_layers": 1, "width": 4, "num_heads": 2, "tied": False}
    model = models.build_language_model("llama", num_classes=9, **options)
    ids = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask")}
    params, stats = jax.jit(model.init)(jax.random.key(0), ids)
    equal = Variables({**params, "lm_head": params["word"]}, stats)
    models.save_huggingface(tmp_path, {"name": "llama", **options}, equal)
    jax.tree.map(np.testing.assert_array_equal, equal, models.load_huggingface(tmp_path)[1])


def test_causal_buffers_and_a_tied_copy_of_a_decoder(tmp_path):
    variables = init("gpt_neo")
    models.save_huggingface(tmp_path, {"name": "gpt_neo", **SMALL["gpt_neo"]}, variables)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(UserError, match=r"is false, but the file has no lm_head\.weight"):
        models.load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = tensors_of(tmp_path)
    tensors["transformer.h.0.attn.attention.bias"] = np.ones((1, 1, 9, 9), bool)
    tensors["transformer.h.0.attn.attention.masked_bias"] = np.array(-1e9, np.float32)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, models.load_huggingface(tmp_path)[1])
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected: lm_head\.weight"):
        models.load_huggingface(tmp_path)


def test_the_unused_positions_of_t5s_cross_attention(tmp_path):
    variables = init("t5")
    models.save_huggingface(tmp_path, {"name": "t5", **SMALL["t5"]}, variables)
    tensors = tensors_of(tmp_path)
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[name] = np.zeros((32, 2), np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, models.load_huggingface(tmp_path)[1])


def test_tensors_that_do_not_fit_are_listed_in_one_line(tmp_path):
    key = "bert.encoder.layer.0.intermediate.dense"
    changed = {
        "bert.pooler.dense.bias": None,
        "bert.extra.weight": np.zeros(2, np.float32),
        f"{key}.weight": np.zeros((24, 40), np.float32),
    }
    with pytest.raises(UserError) as caught:
        models.load_huggingface(write_folder(tmp_path, tensors=changed))
    line = str(caught.value)
    assert "\n" not in line
    assert "missing: bert.pooler.dense.bias" in line
    assert "unexpected: bert.extra.weight" in line
    assert f"of another shape: {key}.weight (24, 40) instead of (40, 24)" in line


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "albert"}, "'albert'; the known ones are bert, distilbert, roberta, t5"),
        ({"model_type": "-"}, "model_type is None"),
        ({"hidden_size": "-"}, 'lacks "hidden_size", which a bert must have'),
        ({"position_embedding_type": "relative_key"}, "only absolute is supported"),
        ({"hidden_act": "mish"}, "activation is 'mish'"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"model_type": "t5", "num_layers": 1, "d_model": 8, "num_heads": 1,
          "feed_forward_proj": "gated-silu"}, "feed_forward_proj is 'gated-silu'"),
        ({"model_type": "gpt_neo", "num_layers": 1, "num_heads": 1}, 'lacks "attention_types"'),
    ],
)  # fmt: skip
def test_configs_of_other_networks(config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        models.load_huggingface(write_folder(tmp_path, config=config))


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        models.load_huggingface(tmp_path)
    path = write_folder(tmp_path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        models.load_huggingface(path)
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        models.load_huggingface(path)
    with pytest.raises(UserError, match="makes a new head, which needs a key"):
        models.load_huggingface(GOLDEN, num_classes=3)


def test_saving_other_variables_is_an_error(tmp_path):
    _, variables = models.load_huggingface(GOLDEN)
    with pytest.raises(UserError, match="the variables are not those of this bert"):
        models.save_huggingface(tmp_path, {"name": "bert", "num_classes": 2}, variables)
    with pytest.raises(UserError, match='is known for "resnet8"'):
        models.save_huggingface(tmp_path, {"name": "resnet8"}, variables)
    settings = {"name": "bert", "num_classes": 2, "depth": 3}
    with pytest.raises(UserError, match='a bert has no option "depth"'):
        models.save_huggingface(tmp_path, settings, variables)
    assert not list(tmp_path.iterdir())


# names in the file of a network with only its second layers: old index -> new index
@pytest.mark.parametrize(
    ("name", "pattern", "layers"),
    [
        ("bert_cls3", r"(encoder\.layer\.)(\d+)", None),
        ("t5_v11", r"(coder\.block\.)(\d+)(?!.*relative)", None),
        ("gpt_neo", r"(transformer\.h\.)(\d+)", None),
        ("gpt_neo", r"(transformer\.h\.)(\d+)", (3, 1)),
    ],
)
def test_selected_layers_are_slices_of_the_file(name, pattern, layers, tmp_path):
    path = folder(name)
    _, variables = models.load_huggingface(path)
    actual = models.select_layers(variables, layers)
    count = len({key for key in actual.params.get("encoder", actual.params) if "layer" in key})
    old = list(layers or range(0, 4 if name == "gpt_neo" else 2, 2))
    assert count == len(old)
    config = json.loads((path / "config.json").read_text())
    config |= {key: count for key in ("num_layers", "num_hidden_layers", "num_decoder_layers")
               if key in config}  # fmt: skip
    if name == "gpt_neo":
        config["attention_layers"] = [config["attention_layers"][i] for i in old]
    models.save_huggingface(tmp_path, config, actual)
    expected = {}
    for key, tensor in tensors_of(path).items():
        match = re.search(pattern, key)
        if match is None:
            expected[key] = tensor
        elif int(match[2]) in old:
            new = re.sub(pattern, rf"\g<1>{old.index(int(match[2]))}", key)
            expected[new] = tensor
    shallow = tensors_of(tmp_path)
    assert set(shallow) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(shallow[key], tensor, err_msg=key)


def test_a_network_of_selected_layers_equals_its_first_layers():
    deep = gpt_neo(GptNeoOptions(**SMALL["gpt_neo"], dropout=0.0))
    batch = {k: np.ones((2, 5), np.int32) for k in ("input_ids", "attention_mask")}
    variables = jax.jit(deep.init)(jax.random.key(0), batch)
    first_layers = models.select_layers(variables, (0, 1))
    shallow = gpt_neo(GptNeoOptions(**{**SMALL["gpt_neo"], "num_layers": 2}, dropout=0.0))
    run = jax.jit(lambda m, v: m.apply(v, batch, train=False)[0].features, static_argnums=0)
    expected = run(deep, variables)["hidden_2"]
    norm = first_layers.params["norm"]
    centred = expected - expected.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    actual = run(shallow, first_layers)["hidden_2"]
    np.testing.assert_allclose(actual, scaled * norm["scale"] + norm["bias"], atol=1e-5)


def test_invalid_layers_are_errors():
    variables = Variables({"layer0": {}, "layer1": {}}, {})
    with pytest.raises(UserError, match="there is no layer 2; the network has 0 to 1"):
        models.select_layers(variables, (0, 2))
    with pytest.raises(UserError, match="keep at least one"):
        models.select_layers(variables, ())
    with pytest.raises(UserError, match="no numbered layers"):
        models.select_layers(Variables({"hidden0": {}}, {}))


@pytest.mark.parametrize("names", [("score",), ("no", "maybe", "yes")])
def test_any_number_of_classes_is_written_with_its_names(names, tmp_path):
    options = {"name": "bert", **SMALL["bert"], "num_classes": len(names)}
    variables = drawn(**options)
    models.save_huggingface(tmp_path, {**options, "class_names": names}, variables)
    assert read_class_names(tmp_path) == names
    jax.tree.map(np.testing.assert_array_equal, variables, models.load_huggingface(tmp_path)[1])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label2id"] == {name: number for number, name in enumerate(names)}
    assert config.get("problem_type") == ("regression" if len(names) == 1 else None)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, ()),
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        ({"id2label": {str(n): str(n) for n in range(11)}}, tuple(map(str, range(11)))),
        ({"label2id": {"b": 1, "a": 0}}, ("a", "b")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"b": 0, "a": 1}}, ("b", "a")),
        ({"id2label": {"0": "x", "1": "y"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("x", "y")),
        ({"id2label": {"0": "LABEL_0"}, "label2id": None}, ("LABEL_0",)),
    ],
)
def test_names_of_classes(config, names):
    assert class_names(config, "config.json") == names


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "must number the classes from 0"),
        ({"id2label": ["a", "b"]}, "must number the classes from 0"),
        ({"id2label": {"first": "a"}}, "must number the classes from 0"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "contradicts id2label"),
    ],
)
def test_names_of_classes_that_cannot_be_ordered(config, says):
    with pytest.raises(UserError, match=f"^config.json: .*{says}"):
        class_names(config, "config.json")


def test_tied_tensors_have_any_of_their_names(tmp_path):
    t5 = ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"]
    names = {"gpt_neo": ["transformer.wte", "lm_head"], "t5": t5}
    for name, tied in names.items():
        variables = drawn(name, num_classes=2, **SMALL[name])
        models.save_huggingface(tmp_path, {"name": name, **SMALL[name]}, variables)
        tensors = tensors_of(tmp_path)
        table = tensors.pop(f"{tied[0]}.weight")
        for copies in ([other] for other in tied) if name == "gpt_neo" else (tied[1:3], tied[:2]):
            copied = {f"{copy}.weight": table.copy() for copy in copies}
            safetensors.numpy.save_file({**tensors, **copied}, tmp_path / "model.safetensors")
            loaded = models.load_huggingface(tmp_path)[1]
            jax.tree.map(np.testing.assert_array_equal, variables, loaded)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "lightning.model.module."])
def test_wrapped_and_sharded_files_are_read(prefix, tmp_path):
    _, expected = models.load_huggingface(GOLDEN)
    tensors = {prefix + name: tensor for name, tensor in tensors_of(GOLDEN).items()}
    (tmp_path / "config.json").write_text((GOLDEN / "config.json").read_text())
    shards = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    for shard, names in shards.items():
        safetensors.numpy.save_file({name: tensors[name] for name in names}, tmp_path / shard)
    table = {name: shard for shard, names in shards.items() for name in names}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    jax.tree.map(np.testing.assert_array_equal, expected, models.load_huggingface(tmp_path)[1])
    # without its head all names of a BERT start with "bert."
    bare = {name: x for name, x in tensors.items() if "classifier" not in name}
    index.unlink()
    safetensors.numpy.save_file(bare, tmp_path / "model.safetensors")
    loaded = models.load_huggingface(tmp_path, num_classes=2, key=jax.random.key(0))[1].params
    for name in set(loaded) - {"fc"}:
        jax.tree.map(np.testing.assert_array_equal, loaded[name], expected.params[name])
