"""T5: the reference library's outputs, an independent forward pass, buckets, choices."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.text.relative_position import relative_buckets
from kdjax.models.text.t5 import T5Options, t5
from kdjax.types import Variables

SHARED = pathlib.Path(__file__).resolve().parents[3] / "../shared/golden/transformers"
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids")
SIZES = {"vocab_size": 40, "num_layers": 2, "width": 16, "num_heads": 4, "ffn_width": 24,
         "buckets": 8, "max_distance": 16}  # fmt: skip


def text(seed=0):
    rng = np.random.default_rng(seed)
    mask = np.ones((3, 11), np.int32)
    mask[1, 4:] = 0
    return {
        "input_ids": rng.integers(1, 40, (3, 11)).astype(np.int32) * mask,
        "attention_mask": mask,
        "decoder_input_ids": rng.integers(1, 40, (3, 5)).astype(np.int32),
    }


def folder(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name}: the reference networks are not beside this checkout")
    return SHARED / name


@pytest.mark.parametrize("name", ["t5_v10", "t5_v11"])
def test_golden_outputs_and_gradients(name):
    path = folder(name)
    golden = np.load(path / "io.npz")
    model, variables = models.load_huggingface(path)
    batch, labels = {key: golden[key] for key in INPUTS}, golden["labels"]

    def loss(params):
        outputs, _ = model.apply(Variables(params, {}), batch, train=False)
        logs = jax.nn.log_softmax(outputs.logits)
        picked = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return -(picked * (labels >= 0)).sum() / (labels >= 0).sum(), outputs

    (value, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    limit = 2e-5 if name == "t5_v10" else 1e-4  # 2e-5 is the difference of float32 and float64
    np.testing.assert_allclose(outputs.logits, golden["logits"], atol=limit)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    for stack in ("encoder", "decoder"):
        for index, hidden in enumerate(golden[f"{stack}_hidden_states"]):
            actual = outputs.features[f"{stack}_hidden_{index}"]
            np.testing.assert_allclose(actual, hidden, atol=1e-4)
    cross = golden["grad.decoder.block.1.layer.1.EncDecAttention.k.weight"]
    actual = grads["decoder"]["layer1"]["cross"]["key"]["kernel"]
    np.testing.assert_allclose(actual.T, cross, atol=1e-5)
    np.testing.assert_allclose(grads["word"]["embedding"], golden["grad.shared.weight"], atol=1e-4)


def test_a_tied_head_that_reads_unscaled_outputs():
    path = GOLDEN / "t5_unscaled"  # as transformers 5 writes tie_word_embeddings=False
    golden = np.load(path / "io.npz")
    model, variables = models.load_huggingface(path)
    assert "lm_head" not in variables.params
    batch = {key: golden[key] for key in INPUTS}
    outputs, _ = jax.jit(lambda v: model.apply(v, batch, train=False))(variables)
    np.testing.assert_allclose(outputs.logits, golden["logits"], atol=5e-4, rtol=1e-4)
    for index, hidden in enumerate(golden["hidden_states"]):
        found = outputs.features[f"decoder_hidden_{index}"]
        np.testing.assert_allclose(found, hidden, atol=1e-4)


@pytest.mark.parametrize("name", ["t5_v10", "t5_v11"])
def test_golden_buckets(name):
    golden = np.load(folder(name) / "io.npz")
    for stack in ("encoder", "decoder"):
        expected = golden[f"{stack}_relative_buckets"]
        sides = {"both_sides": stack == "encoder"}
        actual = relative_buckets(*expected.shape, buckets=8, max_distance=16, **sides)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("both_sides", [True, False])
def test_buckets_by_exact_arithmetic(both_sides):
    actual = relative_buckets(300, 300, buckets=32, max_distance=128, both_sides=both_sides)
    half = 16 if both_sides else 32
    for target, source in [(0, 0), (9, 0), (16, 0), (63, 0), (64, 0), (200, 1), (0, 5), (7, 90)]:
        distance = abs(source - target) if both_sides else max(target - source, 0)
        number = distance
        if distance >= half // 2:
            # the largest k with distance >= exact * (128 / exact)^(k / exact), in integers
            exact, number = half // 2, half // 2
            while number < half - 1 and (distance / exact) ** exact * (1 + 1e-12) >= (
                128 / exact
            ) ** (number + 1 - exact):
                number += 1
        if both_sides and source > target:
            number += half
        assert actual[target, source] == number, (target, source)


def reference(params, batch, heads, *, tied, gated):
    """Return the outputs of both stacks in float64 from the paper's formulas, up to 15 tokens."""
    p = jax.tree.map(np.float64, params)

    def norm(x, at):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * at["scale"]

    def attend(x, y, at, mask, bias):
        q, k, v = (
            np.stack(np.split(z @ at[part]["kernel"], heads, -1), 1)
            for part, z in (("query", x), ("key", y), ("value", y))
        )
        scores = np.where(mask, q @ k.swapaxes(2, 3) + bias, -np.inf)
        mixed = scipy.special.softmax(scores, -1) @ v
        return np.concatenate(list(mixed.swapaxes(0, 1)), -1) @ at["out"]["kernel"]

    def bucket(target, source, both):
        half = 4 if both else 8
        distance = abs(source - target) if both else max(target - source, 0)
        exact = half // 2
        if distance >= exact:
            grown = math.log(distance / exact) / math.log(16 / exact) * (half - exact)
            distance = min(exact + int(grown + 1e-9), half - 1)
        return distance + (half if both and source > target else 0)

    def stack(at, x, mask, context=None, context_mask=None):
        size = range(x.shape[1])
        numbers = [[bucket(t, s, context is None) for s in size] for t in size]
        bias = at["distance"]["embedding"][numbers].transpose(2, 0, 1)
        for index in range(2):
            layer = at[f"layer{index}"]
            y = norm(x, layer["attention_norm"])
            x = x + attend(y, y, layer["attention"], mask, bias)
            if context is not None:
                y = norm(x, layer["cross_norm"])
                x = x + attend(y, context, layer["cross"], context_mask, 0)
            y = norm(x, layer["ffn_norm"])
            z = y @ layer["ffn_in"]["kernel"]
            if gated:
                g = y @ layer["ffn_gate"]["kernel"]
                z *= g * (1 + np.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3))) / 2
            else:
                z = np.maximum(z, 0)
            x = x + z @ layer["ffn_out"]["kernel"]
        return norm(x, at["norm"])

    words, sources = p["word"]["embedding"], batch["attention_mask"][:, None, None, :] > 0
    encoded = stack(p["encoder"], words[batch["input_ids"]], sources)
    ids = batch["decoder_input_ids"]
    earlier = np.tril(np.ones((ids.shape[1],) * 2, bool))
    last = stack(p["decoder"], words[ids], earlier, encoded, sources)
    real = batch["attention_mask"][..., None]
    pooled = (encoded * real).sum(1) / real.sum(1)
    if tied:
        return last / math.sqrt(last.shape[-1]) @ words.T, pooled
    return last @ p["lm_head"]["embedding"].T, pooled


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_built_network_equals_a_float64_forward(version):
    model = t5(T5Options(**SIZES, head_width=6, version=version))
    batch = text()
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    outputs = jax.jit(lambda b: model.apply(variables, b, train=False)[0])(batch)
    gated = version == "1.1"
    expected, pooled = reference(variables.params, batch, 4, tied=not gated, gated=gated)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(outputs.logits, expected, atol=3e-5)
    np.testing.assert_allclose(outputs.features["pooled"], pooled, atol=1e-5)


def test_choices_in_one_pass_equal_one_by_one():
    model = t5(T5Options(**SIZES, dropout=0.0))
    batch = text()
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    choices = np.random.default_rng(5).integers(1, 40, (3, 4, 5)).astype(np.int32)
    run = jax.jit(lambda b: model.apply(variables, b, train=False)[0])
    together = run({**batch, "decoder_input_ids": choices})
    assert together.logits.shape == (3, 4, 5, 40)
    assert together.features["decoder_hidden_1"].shape == (3, 4, 5, 16)
    for k in range(4):
        alone = run({**batch, "decoder_input_ids": choices[:, k]})
        np.testing.assert_allclose(together.logits[:, k], alone.logits, atol=1e-5)


def test_bfloat16_and_dropout():
    model = t5(T5Options(**SIZES, dropout=0.3, dtype="bfloat16"))
    batch = text()
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def loss(params, seed):
        key = jax.random.key(seed)
        outputs = model.apply(Variables(params, {}), batch, train=True, key=key)[0]
        return (outputs.logits**2).mean(), outputs

    run = jax.jit(jax.grad(loss, has_aux=True))
    grads, first = run(variables.params, 0)
    _, second = run(variables.params, 1)
    assert first.logits.dtype == jnp.float32
    assert first.features["encoder_hidden_1"].dtype == jnp.bfloat16
    assert np.abs(first.logits - second.logits).max() > 0.1
    np.testing.assert_array_equal(first.logits, run(variables.params, 0)[1].logits)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "2"}, "t5: version is '2'"),
        ({"num_heads": 3}, "t5: num_heads is 3: it must divide the width, 16"),
        ({"head_width": 0}, "t5: head_width is 0"),
        ({"buckets": 7}, "t5: buckets is 7"),
        ({"max_distance": 4}, "max_distance 4"),
        ({"dropout": -0.1}, "t5: dropout is -0.1"),
    ],
)
def test_invalid_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        models.build("t5", num_classes=2, **{**SIZES, **options})
