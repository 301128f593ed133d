"""BERT: the reference library's outputs, precision, dropout, masks, errors."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.text import attention
from kdjax.types import Variables

HERE = pathlib.Path(__file__).resolve()
GOLDEN = HERE.parents[2] / "golden"
SHARED = HERE.parents[3] / "../shared/golden/transformers"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIZES = {"vocab_size": 50, "num_layers": 2, "width": 16, "num_heads": 4, "max_length": 12}


def folder(name):
    path = GOLDEN / name if (GOLDEN / name).is_dir() else SHARED / name
    if not path.is_dir():
        pytest.skip(f"{name}: the larger reference networks are not beside this checkout")
    return path


def text(length=8, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int32)
    mask[1, 3:] = 0
    ids = rng.integers(1, SIZES["vocab_size"], (batch, length)).astype(np.int32)
    types = rng.integers(0, 2, (batch, length)).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


@pytest.fixture(scope="module")
def small():
    model = models.build("bert", num_classes=3, dropout=0.2, **SIZES)
    return model, jax.jit(model.init)(jax.random.key(0), text())


@pytest.mark.parametrize("name", ["bert_reg1", "bert_reg6", "bert_cls3"])
def test_golden_outputs_and_gradients(name):
    path = folder(name)
    golden = np.load(path / "io.npz")
    model, variables = models.load_huggingface(path)
    batch, labels = {key: golden[key] for key in INPUTS}, golden["labels"]

    def loss(params):
        outputs, _ = model.apply(Variables(params, {}), batch, train=False)
        if name == "bert_cls3":
            logs = jax.nn.log_softmax(outputs.logits)
            return -logs[jnp.arange(len(labels)), labels].mean(), outputs
        return ((outputs.logits.reshape(labels.shape) - labels) ** 2).mean(), outputs

    (value, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    # the reference is float32 too: 1e-6 apart; the mistakes it lists change 4e-5
    np.testing.assert_allclose(outputs.logits, golden["logits"], atol=1e-5)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    np.testing.assert_allclose(outputs.features["pooled"], golden["pooled_output"], atol=1e-5)
    for index, hidden in enumerate(golden["hidden_states"]):
        np.testing.assert_allclose(outputs.features[f"hidden_{index}"], hidden, atol=2e-5)
    query = golden["grad.bert.encoder.layer.0.attention.self.query.weight"]
    np.testing.assert_allclose(grads["layer0"]["attention"]["query"]["kernel"].T, query, atol=1e-5)
    words = golden["grad.bert.embeddings.word_embeddings.weight"]
    np.testing.assert_allclose(grads["word"]["embedding"], words, atol=1e-5)


def reference(params, batch, heads):
    """Return the outputs in float64, from the paper's formulas."""
    p = jax.tree.map(np.float64, params)

    def dense(x, at):
        return x @ at["kernel"] + at["bias"]

    def norm(x, at):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * at["scale"] + at["bias"]

    length = batch["input_ids"].shape[1]
    x = p["word"]["embedding"][batch["input_ids"]] + p["position"]["embedding"][:length]
    x = norm(x + p["token_type"]["embedding"][batch["token_type_ids"]], p["embedding_norm"])
    index = 0
    while f"layer{index}" in p:
        layer = p[f"layer{index}"]
        q, k, v = (
            np.stack(np.split(dense(x, layer["attention"][part]), heads, -1), 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
        scores = np.where(batch["attention_mask"][:, None, None, :] > 0, scores, -np.inf)
        mixed = np.concatenate(list((scipy.special.softmax(scores, -1) @ v).swapaxes(0, 1)), -1)
        x = norm(x + dense(mixed, layer["attention"]["out"]), layer["attention_norm"])
        y = dense(x, layer["ffn_in"])
        y = dense(y * scipy.special.ndtr(y), layer["ffn_out"])
        x, index = norm(x + y, layer["ffn_norm"]), index + 1
    return dense(np.tanh(dense(x[:, 0], p["pooler"])), p["fc"])


def test_built_network_equals_a_float64_forward(small):
    model, variables = small
    # larger weights than at initialisation, so that every part affects the logits
    params = jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x + 0.1, variables.params)
    actual = jax.jit(lambda p, b: model.apply(Variables(p, {}), b, train=False)[0].logits)
    batch = text()
    expected = reference(params, batch, 4)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual(params, batch), expected, atol=1e-5)


def test_parameter_count_by_hand(small):
    _, variables = small
    width, wide, embeddings = 16, 64, (50 + 12 + 2) * 16
    layer = 4 * (width * width + width) + 2 * width * wide + wide + width + 4 * width
    count = embeddings + 2 * width + 2 * layer + width * width + width + 3 * (width + 1)
    assert models.parameter_count(variables) == count
    kernel = np.asarray(variables.params["layer0"]["ffn_in"]["kernel"])
    assert 0.018 < kernel.std() < 0.022  # .02, estimated from 1,024 numbers


def test_padding_has_no_effect(small):
    model, variables = small
    batch = text()
    longer = {k: np.pad(v, ((0, 0), (0, 4)), constant_values=0) for k, v in batch.items()}
    changed = {**longer, "input_ids": np.where(longer["attention_mask"], longer["input_ids"], 7)}
    run = jax.jit(lambda b: model.apply(variables, b, train=False)[0])
    short, long = run(batch), run(changed)
    np.testing.assert_allclose(short.logits, long.logits, atol=1e-6)


def test_a_text_of_padding_only_is_finite(small):
    model, variables = small
    batch = {k: np.zeros((2, 8), np.int32) for k in INPUTS}

    def total(params):
        return model.apply(Variables(params, {}), batch, train=False)[0].logits.sum()

    assert all(
        np.isfinite(x).all() for x in jax.tree.leaves(jax.jit(jax.grad(total))(variables.params))
    )


def test_dropout_depends_on_the_key_in_training_only(small):
    model, variables = small
    run = jax.jit(
        lambda seed, train: model.apply(variables, text(), train=train, key=jax.random.key(seed)),
        static_argnums=1,
    )
    first, second = (np.asarray(run(seed, True)[0].logits) for seed in (0, 1))
    np.testing.assert_array_equal(first, run(0, True)[0].logits)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(run(0, False)[0].logits, run(1, False)[0].logits)
    with pytest.raises(UserError, match="bert: dropout in training needs a key"):
        model.apply(variables, text(), train=True)


def test_bfloat16_keeps_parameters_and_logits_in_float32(small):
    model, variables = small
    low = models.build("bert", num_classes=3, dropout=0.0, dtype="bfloat16", **SIZES)
    shapes = jax.eval_shape(low.init, jax.random.key(0), text())
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}

    def loss(params):
        outputs = low.apply(Variables(params, {}), text(), train=True)[0]
        return (outputs.logits**2).sum(), outputs

    grads, outputs = jax.jit(jax.grad(loss, has_aux=True))(variables.params)
    assert outputs.logits.dtype == outputs.features["pooled"].dtype == jnp.float32
    assert outputs.features["hidden_1"].dtype == jnp.bfloat16
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    exact = model.apply(variables, text(), train=False)[0].logits
    # about ten roundings to eight bits of logits around .05
    np.testing.assert_allclose(outputs.logits, exact, atol=5e-3)


def test_drop_zeroes_the_rate_and_preserves_the_mean():
    x = jnp.ones((301, 333))
    actual = np.asarray(attention.drop(x, 0.3, jax.random.key(3)))
    nonzero = actual > 0
    # four standard deviations of a mean of 100,233 draws
    assert abs(nonzero.mean() - 0.7) < 4 * np.sqrt(0.21 / x.size)
    np.testing.assert_allclose(actual[nonzero], 1 / 0.7, rtol=1e-4)
    rows = nonzero.mean(1)
    assert rows.std() == pytest.approx(np.sqrt(0.21 / 333), rel=0.25)


def test_gelu_value_and_gradients():
    x = np.linspace(-9, 9, 181)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    value, slope = x * scipy.special.ndtr(x), scipy.special.ndtr(x) + x * density
    inputs = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(attention.gelu(inputs), value, atol=2e-6)
    gradient = jax.vmap(jax.grad(attention.gelu))
    np.testing.assert_allclose(gradient(inputs), slope, atol=2e-6)
    second = jax.vmap(jax.grad(jax.grad(attention.gelu)))(inputs)
    np.testing.assert_allclose(second, density * (2 - x**2), atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "bert: num_heads is 3: it must divide the width, 16"),
        ({"num_layers": 0}, "bert: num_layers is 0; it must be a whole number >= 1"),
        ({"dropout": 1.0}, r"bert: dropout is 1.0: use a number in \[0, 1\)"),
        ({"activation": "mish"}, "bert: activation is 'mish': use gelu, gelu_new, relu, silu"),
        ({"depth": 3}, 'model "bert" has no option "depth"; it has: activation'),
    ],
)
def test_invalid_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        models.build("bert", num_classes=2, **{**SIZES, **options})


def test_invalid_batches_are_errors(small):
    model, variables = small
    with pytest.raises(UserError, match=r'bert reads batch\["token_type_ids"\]'):
        model.apply(variables, {k: text()[k] for k in INPUTS[:2]}, train=False)
    with pytest.raises(UserError, match="has 13 tokens, but the network has 12 positions"):
        model.apply(variables, text(length=13), train=False)
    longer = {**text(), "token_type_ids": np.zeros((3, 14), np.int32)}
    with pytest.raises(UserError, match=r'batch\["token_type_ids"\] has 14 tokens'):
        model.apply(variables, longer, train=False)
    floats = {**text(), "input_ids": np.ones((3, 8), np.float32)}
    with pytest.raises(UserError, match=r'batch\["input_ids"\] is float32'):
        model.apply(variables, floats, train=False)
    wrong = models.build("bert", num_classes=4, **SIZES)
    with pytest.raises(UserError, match=r"bert: the parameters do not fit: .*fc"):
        wrong.apply(variables, text(), train=False)
