"""Roles whose network a Hugging Face folder describes. Nothing is trained or compiled."""

import json
import pathlib
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models
from kdjax.data import save_tokenizer
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.models.io import huggingface_folder
from tests.data import tiny_text
from tests.faults.commands import base

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
BERT = {"name": "bert", "num_layers": 4, "width": 12, "num_heads": 3, "ffn_width": 20}


def config(folder, **teacher):
    """RTE, of which nothing says how texts become tokens."""
    data = {"name": "text", "task": "glue/rte", "path": str(folder), "max_length": 24}
    roles = {"teacher": {"terms": {"ce": {}}, **teacher}}
    return {
        "num_steps": 2, "batch_size": 8, "devices": 1, "data": {**data, "validation": 0.2},
        "roles": roles, "select": {"role": "teacher"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The folder of the data, that of a network without a head, and its variables."""
    folder = tmp_path_factory.mktemp("folders")
    tiny_text.write(folder / "data", "glue/rte")
    run = build(config(folder / "data", model=BERT) | {"data": small(folder)})
    batch = {n: jax.ShapeDtypeStruct((1, *s), t) for n, (s, t) in run.source.spec.inputs.items()}
    shapes = jax.eval_shape(run.variants[0].players["teacher"].model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    options = {**BERT, "vocab_size": run.source.spec.vocab_size, "num_classes": 2}
    models.save_huggingface(folder / "hf", options, variables)
    tokenizer = run.data.dataset.tokenizer
    tokenizer.encoder.save(str(folder / "hf" / "tokenizer.json"))  # and no vocab.txt
    tensors = safetensors.numpy.load_file(folder / "hf/model.safetensors")
    bare = {n.removeprefix("bert."): x for n, x in tensors.items() if "classifier" not in n}
    safetensors.numpy.save_file(bare, folder / "hf/model.safetensors")
    return folder, variables


def small(folder):
    return {**config(folder / "data")["data"], "vocabulary_size": 90}


def hf(texts, **changes):
    folder = str(texts[0] / "hf")
    return {"model": {"name": "huggingface"}, "checkpoint": folder, **changes}


def built(texts, **teacher):
    experiment = build(config(texts[0] / "data", **teacher))
    return experiment, experiment.variants[0]


def test_a_folder_says_all_of_a_network_and_its_tokenizer(texts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment, variant = built(texts, **hf(texts))
    table = variant.config.roles["teacher"].model
    assert {"name": table.name, **table.options}.items() >= BERT.items()
    assert experiment.source.spec.vocab_size == table.options["vocab_size"]
    assert variant.new_heads == ("teacher",)
    loaded = variant.initial_variables["teacher"].params
    expected = {k: x for k, x in texts[1].params.items() if k != "fc"}
    jax.tree.map(np.testing.assert_array_equal, {k: loaded[k] for k in expected}, expected)
    assert not np.any(loaded["fc"]["kernel"])
    # the config of the workdir stays that of the experiment
    assert experiment.config.roles["teacher"].model.name == "huggingface"


def test_a_shallower_student_and_one_from_scratch(texts):
    params = texts[1].params
    _, variant = built(texts, **hf(texts, keep_layers=(0, 3)))
    loaded = variant.initial_variables["teacher"].params
    assert "layer2" not in loaded
    jax.tree.map(np.testing.assert_array_equal, loaded["layer1"], params["layer3"])
    path = {"name": "huggingface", "path": str(texts[0] / "hf"), "from_scratch": True}
    for keep, count in (((), 4), ((0, 3), 2)):
        _, variant = built(texts, model=path, keep_layers=keep)
        assert variant.initial_variables == {}
        assert variant.config.roles["teacher"].model.options["num_layers"] == count
    _, variant = built(texts, model={"name": "huggingface", "path": str(texts[0] / "hf")})
    assert variant.new_heads == ("teacher",)


def test_sizes_of_an_experiment_give_way_to_the_folders(texts):
    model = {"name": "huggingface", "num_layers": 12, "num_heads": 3, "dropout": 0.3}
    with pytest.warns(UserWarning, match=r"network is that of .*: num_layers=4 \(not 12\)$"):
        _, variant = built(texts, **hf(texts, model=model))
    options = variant.config.roles["teacher"].model.options
    assert (options["num_layers"], options["dropout"]) == (4, 0.3)


def test_a_checkpoint_of_another_size_names_the_keys_that_differ(texts):
    other = {"name": "bert", "num_layers": 12, "width": 24, "num_heads": 2, "vocab_size": 90}
    table = config(texts[0] / "data", **hf(texts, model=other))
    table["data"]["tokenizer"] = str(texts[0] / "hf")
    other["vocab_size"] = json.loads((texts[0] / "hf/config.json").read_text())["vocab_size"]
    with pytest.raises(UserError) as caught:
        build(table)
    line = str(caught.value)
    says = "num_layers 4, the model 12; width 12, the model 24; num_heads 3, the model 2: set the"
    assert says in line
    assert "model.name=huggingface" in line
    assert "tensors" not in line
    assert "\n" not in line


def edited(texts, out, **changes):
    """A copy of the folder with another config.json; None leaves a key out."""
    settings = {**json.loads((texts[0] / "hf/config.json").read_text()), **changes}
    out.mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (out / name).write_bytes((texts[0] / "hf" / name).read_bytes())
    text = json.dumps({key: value for key, value in settings.items() if value is not None})
    (out / "config.json").write_text(text)
    return str(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "albert"}, r"teacher\.model: .*model_type is 'albert'; the known ones"),
        ({"hidden_size": None}, 'lacks "hidden_size", which a bert must have'),
        ({"vocab_size": 7}, "vocab_size is 7, but the tokenizer has"),
        ({"num_hidden_layers": 3}, "unexpected: bert.encoder.layer.3"),
    ],
)
def test_folders_that_cannot_be_used(texts, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        built(texts, **hf(texts, checkpoint=edited(texts, tmp_path / "hf", **changes)))


def test_mistakes_in_the_table(texts, tmp_path):
    for model, checkpoint, message in (
        ({}, None, r"roles\.teacher\.model: name is huggingface, which needs a folder"),
        ({"from_scratch": "yes"}, "hf", "from_scratch is 'yes'; it must be True or False"),
        ({"depth": 3}, "hf", 'model "bert" has no option "depth"'),
        ({}, str(tmp_path), r"config\.json: cannot be read"),
    ):
        folder = str(texts[0] / "hf") if checkpoint == "hf" else checkpoint
        with pytest.raises(UserError, match=message):
            built(texts, model={"name": "huggingface", **model}, checkpoint=folder)


def images(checkpoint, side=16, classes=5, **teacher):
    table = base(roles__teacher={"terms": {}, **teacher}, batch_size=8)
    table["roles"]["teacher"] |= {"model": {"name": "huggingface"}, "checkpoint": str(checkpoint)}
    table["roles"]["student"]["terms"] = {"ce": {}}
    table["data"] |= {"shape": (side, side, 3), "num_classes": classes}
    return table


def test_a_vision_transformer_from_its_folder(tmp_path):
    with pytest.warns(UserWarning, match="assumed to be in the data's order"):
        (variant,) = build(images(GOLDEN / "deit")).variants
    jax.tree.map(
        np.testing.assert_array_equal,
        variant.initial_variables["teacher"],
        models.load_huggingface(GOLDEN / "deit")[1],
    )
    says = r"roles\.teacher: vit: images are 8 x 8, .* set data\.image_size=16"
    with pytest.raises(UserError, match=says):
        build(images(GOLDEN / "deit", side=8))
    (variant,) = build(images(GOLDEN / "deit", classes=3, terms={"ce": {}})).variants
    assert variant.new_heads == ("teacher",)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((GOLDEN / "deit" / name).read_bytes())
    spec = build(images(GOLDEN / "deit", classes=3, terms={"ce": {}})).source.spec
    huggingface_folder.write_normalisation(tmp_path, spec._replace(mean=(9.0,) * 3), None)
    with pytest.raises(UserError, match=r"normalised by mean \(9,9,9,\), .* set data\.mean"):
        build(images(tmp_path, classes=3, terms={"ce": {}}))
    huggingface_folder.write_normalisation(tmp_path, spec, 0.875)
    build(images(tmp_path, classes=3, terms={"ce": {}}))
    (tmp_path / "preprocessor_config.json").write_text("[")
    with pytest.raises(UserError, match=r"preprocessor_config\.json: cannot be read"):
        build(images(tmp_path, classes=3, terms={"ce": {}}))


def test_a_deit_learns_from_any_teacher_by_its_own_output():
    table = images(GOLDEN / "deit")
    table["roles"]["student"] = {
        "model": {"name": "huggingface", "path": str(GOLDEN / "deit"), "from_scratch": True},
        "terms": {
            "ce": {"layer": "class_logits"},
            "hard_cross_entropy": {"toward": "teacher", "layer": "distillation_logits"},
        },
    }
    (variant,) = build(table).variants
    assert variant.players["student"].terms["ce"].spec.own_layers == ("class_logits",)
    table["roles"]["student"]["model"] = {"name": "mlp"}
    with pytest.raises(UserError, match="no layer 'class_logits'; the network has"):
        build(table)


def test_the_tokenizer_travels_with_an_export(texts, tmp_path):
    experiment, _ = built(texts, **hf(texts))
    experiment.task.save_files(experiment.data.dataset, tmp_path)
    experiment.task.check_files(experiment.data.dataset, tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    save_tokenizer(experiment.data.dataset.tokenizer, tmp_path / "again")
