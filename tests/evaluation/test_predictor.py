"""Predictors of texts, of scores, and of batches of any size."""

import jax
import numpy as np
import pytest

import kdjax
from kdjax import data, models
from kdjax.data.text import tasks, tokenize
from kdjax.errors import UserError
from kdjax.evaluation import predictor
from kdjax.models.io import export

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "the"]
BERT = {"name": "bert", "vocab_size": 10, "num_layers": 1, "width": 8, "num_heads": 2}


def write(folder, network, shapes, **config):
    options = {k: v for k, v in network.items() if k != "name"}
    model = models.build(network["name"], num_classes=config["num_classes"], **options)
    batch = {name: np.zeros((1, *shape), kind) for name, (shape, kind) in shapes.items()}
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    config = {"shape": [16], "mean": [0.0], "std": [1.0], "scale": 1.0, **config}
    export.save(folder, variables, {"model": network, **config})
    return model, variables


def text_export(folder, task, num_classes):
    shapes = {name: ([16], "int32") for name in ("input_ids", "attention_mask", "token_type_ids")}
    config = {"task": task, "num_classes": num_classes, "inputs": shapes}
    names = list(tasks.lookup(task).class_names)
    made = write(folder, BERT, shapes, class_names=names, temperature=2.0, **config)
    tokenize.save(tokenize.from_words(WORDS), folder)
    return made


def test_texts_are_tokenised_and_scored(tmp_path):
    model, variables = text_export(tmp_path, "glue/sst2", 2)
    texts = ["The good film", "a"]
    predict = kdjax.load(tmp_path)
    prediction = predict(texts)
    ids = np.zeros((2, 16), np.int32)
    ids[0, :5], ids[1, :3] = (2, 9, 6, 8, 3), (2, 5, 3)  # [CLS] the good film [SEP]
    mask = (ids > 0).astype(np.int32)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids}
    outputs, _ = jax.jit(lambda v: model.apply(v, batch, train=False))(variables)
    np.testing.assert_allclose(prediction.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    scaled = np.exp(prediction.logits / 2.0)
    expected = scaled / scaled.sum(1, keepdims=True)
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5)
    assert set(prediction.labels) <= {"negative", "positive"}
    same = predict([{"sentence": text} for text in texts])
    np.testing.assert_array_equal(same.logits, prediction.logits)


def test_scores_of_pairs_are_values(tmp_path):
    text_export(tmp_path, "glue/stsb", 1)
    predict = kdjax.load(tmp_path)
    prediction = predict([("a film", "the film"), ("bad", "good")])
    assert prediction.logits.shape == (2, 1)
    assert (prediction.probabilities.shape, prediction.labels) == ((2, 0), ())
    with pytest.raises(UserError, match=r"text 0 has 1 parts; glue/stsb takes a pair of texts"):
        predict(["a film"])
    with pytest.raises(UserError, match=r"text 0 lacks sentence2, of glue/stsb"):
        predict([{"sentence1": "a"}])
    with pytest.raises(UserError, match="text 0 is or contains None; give strings"):
        predict([{"sentence1": "a film", "sentence2": None}])
    stripped = predict([("  a film\n", "the film ")])
    np.testing.assert_allclose(stripped.logits, prediction.logits[:1], rtol=1e-5)


def test_a_language_model_ranks_the_answers_of_a_task(tmp_path):
    encoder = data.open_encoder(
        _with_words(tmp_path), "super_glue/boolq", max_length=16, choices=True
    )
    rows = [{"passage": "the good film", "question": "a film"}]
    (batch,) = encoder.batches(rows, 4)
    assert batch["choice_ids"].shape[:2] == (4, 2)
    assert batch["mask"].tolist() == [1, 0, 0, 0]
    with pytest.raises(UserError, match="text 0: give a dict of passage, question"):
        list(encoder.batches(["the good film"], 4))
    with pytest.raises(UserError, match=r"holds no vocab\.txt"):
        data.open_encoder(tmp_path / "none", "glue/sst2", max_length=16, choices=False)


def _with_words(folder):
    tokenize.save(tokenize.from_words(WORDS), folder)
    return folder


def test_batches_are_padded_to_few_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(predictor, "BATCH_SIZES", (1, 4))
    network = {"name": "mlp", "hidden": [4]}
    shapes = {"image": ((2, 2, 1), "float32")}
    _, variables = write(
        tmp_path, network, shapes, num_classes=3, shape=[2, 2, 1], scale=255, class_names=["x"] * 3
    )
    predict = kdjax.load(tmp_path)
    images = np.arange(36, dtype=np.uint8).reshape(9, 2, 2, 1)
    all_at_once = predict(images).logits
    for count in (0, 1, 3):
        logits = predict(images[:count]).logits
        np.testing.assert_allclose(logits, all_at_once[:count], rtol=1e-5, atol=1e-6)
    assert predict.apply._cache_size() == 2
    jax.tree.map(np.testing.assert_array_equal, predict.variables, variables)


def test_what_predicts_no_classes_is_refused(tmp_path):
    network = {"name": "mlp", "hidden": [4]}
    shapes = {"image": ((2, 2, 1), "float32")}
    config = {"num_classes": 3, "shape": [2, 2, 1]}
    write(tmp_path / "pairs", network, shapes, latents=[4], **config)
    write(tmp_path / "imported", network, shapes, **{**config, "mean": None})
    with pytest.raises(UserError, match="holds no classifier"):
        kdjax.load(tmp_path / "pairs")
    with pytest.raises(UserError, match="does not say how images are normalised"):
        kdjax.load(tmp_path / "imported")
