"""Teachers from files: their classes are those of the data by name, their vocabulary is the same.

Nothing is trained or compiled: `build` reads the weights.
"""

import json
import types
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models
from kdjax.data import save_tokenizer
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import export_run
from kdjax.experiment.run.export_run import ExportRequest
from kdjax.models.io import export as model_export
from kdjax.models.io.huggingface_folder import read_class_names
from tests.data import tiny_text
from tests.faults.commands import base

CLASSES = ("entailment", "contradiction", "neutral")  # of CB, in the data's order
BERT = {"num_layers": 1, "width": 8, "num_heads": 2}


def text_config(folder, task="super_glue/cb", **teacher):
    terms = {"label_logit_mse" if task == "glue/stsb" else "ce": {}}
    return {
        "num_steps": 2,
        "batch_size": 8,
        "devices": 1,
        "data": {
            "name": "text",
            "task": task,
            "path": str(tiny_text.write(folder, task)),
            "max_length": 24,
            "vocabulary_size": 90,
            "validation": 0.2,
        },
        "roles": {
            "teacher": {"model": {"name": "bert", **BERT}, "terms": terms} | teacher,
            "student": {"model": {"name": "bert", **BERT}, "terms": terms},
        },
    }


def drawn(run, role="teacher"):
    """Random variables of a role of a run."""
    batch = {name: jax.ShapeDtypeStruct((1, *s), t) for name, (s, t) in _inputs(run).items()}
    shapes = jax.eval_shape(run.variants[0].players[role].model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def _inputs(run):
    spec = run.source.spec
    return spec.inputs or {"image": (spec.shape, "float32")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Folder of the data, the run, and a folder of Hugging Face with its network."""
    folder = tmp_path_factory.mktemp("texts")
    run = build(text_config(folder / "data"))
    variables = drawn(run)
    options = {"name": "bert", **BERT, "vocab_size": run.source.spec.vocab_size}
    classes = {"num_classes": 3, "class_names": CLASSES}
    models.save_huggingface(folder / "hf", {**options, **classes}, variables)
    save_tokenizer(run.data.dataset.tokenizer, folder / "hf")
    return folder, variables


def changed(texts, out, names=CLASSES, order=(0, 1, 2)):
    """A copy of the folder with rows of the head in another order, and other names."""
    folder, _ = texts
    tensors = safetensors.numpy.load_file(folder / "hf" / "model.safetensors")
    tensors |= {n: x[list(order)] for n, x in tensors.items() if n.startswith("classifier")}
    config = json.loads((folder / "hf" / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    del config["label2id"]
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    (out / "vocab.txt").write_bytes((folder / "hf" / "vocab.txt").read_bytes())
    safetensors.numpy.save_file(tensors, out / "model.safetensors")
    return out


def teacher_of(texts, checkpoint, **table):
    said = text_config(texts[0] / "data", terms={}, checkpoint=str(checkpoint), **table)
    return build(said).variants[0].initial_variables["teacher"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (CLASSES, (0, 1, 2)),
        (("contradiction", "neutral", "entailment"), (1, 2, 0)),
        (("NEUTRAL", "Contradiction", "ENTAILMENT"), (2, 1, 0)),
    ],
)
def test_a_teacher_with_rows_and_names_in_another_order_is_the_same(texts, tmp_path, names, order):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = teacher_of(texts, changed(texts, tmp_path / "hf", names, order))
    jax.tree.map(np.testing.assert_array_equal, loaded, texts[1])


def test_other_names_are_refused_also_of_a_network_that_trains(texts, tmp_path):
    path = changed(texts, tmp_path / "hf", ("negative", "neutral", "positive"))
    for terms in ({}, {"ce": {}}):
        said = text_config(texts[0] / "data", checkpoint=str(path), terms=terms)
        with pytest.raises(UserError, match=r"roles\.teacher\.checkpoint: .* has the classes neg"):
            build(said)


def test_names_that_are_numbers_are_assumed_aloud(texts, tmp_path):
    path = changed(texts, tmp_path / "hf", ("LABEL_0", "LABEL_1", "LABEL_2"))
    with pytest.warns(UserWarning, match="assumed to be in the data's order: entailment, contr"):
        loaded = teacher_of(texts, path)
    jax.tree.map(np.testing.assert_array_equal, loaded, texts[1])


def test_another_vocabulary_beside_the_weights_is_refused(texts, tmp_path):
    path = changed(texts, tmp_path / "hf")
    words = (path / "vocab.txt").read_text().split("\n")
    words[-3], words[-2] = words[-2], words[-3]
    (path / "vocab.txt").write_text("\n".join(words))
    says = rf"teacher\.checkpoint: .*another vocabulary.*set data\.vocabulary={path}"
    with pytest.raises(UserError, match=says):
        teacher_of(texts, path)
    words[-3], words[-2] = words[-2], words[-3]
    (path / "vocab.txt").write_text("\n".join(words))
    teacher_of(texts, path)
    (path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(UserError, match=says):
        teacher_of(texts, path)
    said = text_config(texts[0] / "data", terms={}, checkpoint=str(path))
    said["data"]["vocabulary"] = str(path)  # the remedy of the message
    build(said)
    (path / "vocab.txt").unlink()
    with pytest.warns(UserWarning, match="holds no vocabulary; the data's is assumed"):
        teacher_of(texts, path)


def test_pytorch_model_bin_is_read(texts, tmp_path):
    path = changed(texts, tmp_path / "hf")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    jax.tree.map(np.testing.assert_array_equal, teacher_of(texts, path), texts[1])


def test_our_own_exports_are_reordered_by_name_too(tmp_path):
    said = base(roles__teacher__terms={}, roles__teacher__checkpoint=str(tmp_path))
    run = build(base())
    spec, variables = run.source.spec, drawn(run)
    labels = spec.class_names
    about = {"model": said["roles"]["teacher"]["model"], **spec._asdict()}
    for names, order in ((labels, [0, 1, 2]), (labels[::-1], [2, 1, 0])):
        head = {name: x[..., order] for name, x in variables.params["fc"].items()}
        rotated = variables._replace(params={**variables.params, "fc": head})
        model_export.save(tmp_path, rotated, {**about, "class_names": names})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = build(said).variants[0].initial_variables["teacher"]
        jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    model_export.save(tmp_path, variables, {**about, "class_names": ("cat", "dog", "cow")})
    with pytest.warns(UserWarning, match="assumed to be in the data's order"):  # of synthetic data
        build(said)
    model_export.save(tmp_path, variables, {**about, "class_names": []})
    with pytest.warns(UserWarning, match="assumed to be in the data's order"):  # an import
        build(said)


@pytest.mark.parametrize("task", ["glue/stsb", "super_glue/cb"])
def test_any_task_is_exported_for_hugging_face(task, tmp_path):
    run = build(text_config(tmp_path / "data", task))
    variant, variables = run.variants[0], drawn(run)
    results = types.SimpleNamespace(
        outcomes={variant.name: types.SimpleNamespace(
            chosen={"teacher": types.SimpleNamespace(members=(0,))},
            members=[types.SimpleNamespace(results={"test": {}, "validation": {}})])},
        networks=lambda _, best: {"teacher": jax.tree.map(lambda x: x[None], variables)},
    )  # fmt: skip
    request = ExportRequest("teacher", form="huggingface")
    export_run.from_workdir(run, results, request, tmp_path / "out")
    assert read_class_names(tmp_path / "out") == run.source.spec.class_names
    said = text_config(tmp_path / "data", task, terms={}, checkpoint=str(tmp_path / "out"))
    loaded = build(said).variants[0].initial_variables["teacher"]
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    # nothing is left of an export that fails at its end
    with pytest.raises(UserError, match=r"--format=torch: teacher: .* has no PyTorch names"):
        export_run.from_workdir(run, results, request._replace(form="torch"), tmp_path / "torch")
    assert not (tmp_path / "torch").exists()
    assert not list(tmp_path.glob(".*"))
