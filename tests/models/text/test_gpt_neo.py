"""GPT-Neo: the reference library's outputs, an independent forward pass, padding, windows."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.text.gpt_neo import GptNeoOptions, gpt_neo
from kdjax.types import Variables

SHARED = pathlib.Path(__file__).resolve().parents[3] / "../shared/golden/transformers"
SIZES = {"vocab_size": 30, "num_layers": 2, "width": 12, "num_heads": 3, "max_length": 16,
         "window": 3}  # fmt: skip


def text(seed=0):
    mask = np.ones((3, 9), np.int32)
    mask[1, 4:] = 0
    ids = np.random.default_rng(seed).integers(1, 30, (3, 9)).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.fixture(scope="module")
def small():
    model = gpt_neo(GptNeoOptions(**SIZES, dropout=0.2))
    variables = jax.jit(model.init)(jax.random.key(0), text())
    # larger than at initialisation, so that attention affects the logits
    params = jax.tree.map(lambda x: x * 12 if x.ndim == 2 else x + 0.1, variables.params)
    run = jax.jit(lambda b: model.apply(Variables(params, {}), b, train=False)[0])
    return model, params, run


def test_golden_outputs_and_gradients():
    path = SHARED / "gpt_neo"
    if not path.is_dir():
        pytest.skip("the reference networks are not beside this checkout")
    golden = np.load(path / "io.npz")
    model, variables = models.load_huggingface(path)
    batch = {key: golden[key] for key in ("input_ids", "attention_mask")}
    labels = golden["labels"][:, 1:]

    def loss(params):
        outputs, _ = model.apply(Variables(params, {}), batch, train=False)
        logs = jax.nn.log_softmax(outputs.logits[:, :-1])
        picked = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return -(picked * (labels >= 0)).sum() / (labels >= 0).sum(), outputs

    (value, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    real = batch["attention_mask"] > 0  # outputs at padding depend on the mask only
    np.testing.assert_allclose(outputs.logits[real], golden["logits"][real], atol=1e-4)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    for index, hidden in enumerate(golden["hidden_states"]):
        actual = outputs.features[f"hidden_{index}"]
        np.testing.assert_allclose(actual[real], hidden[real], atol=1e-4)
    query = golden["grad.transformer.h.1.attn.attention.q_proj.weight"]
    np.testing.assert_allclose(grads["layer1"]["attention"]["query"]["kernel"].T, query, atol=1e-5)
    words = golden["grad.transformer.wte.weight"]
    np.testing.assert_allclose(grads["word"]["embedding"], words, atol=1e-5)


def reference(params, ids, heads, window, kinds):
    """Return logits and last states of one text without padding in float64."""
    p = jax.tree.map(np.float64, params)

    def norm(x, at):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * at["scale"] + at["bias"]

    length = len(ids)
    x = p["word"]["embedding"][ids] + p["position"]["embedding"][:length]
    for index, kind in enumerate(kinds):
        layer = p[f"layer{index}"]
        y, parts = norm(x, layer["attention_norm"]), layer["attention"]
        q, k, v = (
            np.stack(np.split(y @ parts[name]["kernel"], heads, -1))
            for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2)
        reach = window if kind == "local" else length
        for t in range(length):
            seen = [max(0, t - reach + 1) <= s <= t for s in range(length)]
            scores[:, t, np.logical_not(seen)] = -np.inf
        mixed = np.concatenate(list(scipy.special.softmax(scores, -1) @ v), -1)
        x = x + mixed @ parts["out"]["kernel"] + parts["out"]["bias"]
        y = norm(x, layer["ffn_norm"]) @ layer["ffn_in"]["kernel"] + layer["ffn_in"]["bias"]
        y *= (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))) / 2
        x = x + y @ layer["ffn_out"]["kernel"] + layer["ffn_out"]["bias"]
    x = norm(x, p["norm"])
    return x @ p["word"]["embedding"].T, x


def test_equals_a_float64_forward_for_any_padding_side(small):
    _, params, run = small
    ids = text()["input_ids"][1, :4]
    logits, states = reference(params, ids, 3, 3, ("global", "local"))
    assert np.abs(logits).max() > 1
    places = np.array([[0, 1, 2, 3], [5, 6, 7, 8], [0, 3, 4, 8]])  # right, left, in between
    batch = {name: np.zeros((3, 9), np.int32) for name in ("input_ids", "attention_mask")}
    for row, place in enumerate(places):
        batch["input_ids"][row, place], batch["attention_mask"][row, place] = ids, 1
    outputs = run(batch)
    for row, place in enumerate(places):
        np.testing.assert_allclose(outputs.logits[row, place], logits, atol=2e-5)
        np.testing.assert_allclose(outputs.features["pooled"][row], states[-1], atol=2e-5)


def test_a_full_length_row_and_the_window(small):
    _, params, run = small
    batch = text()
    logits, _ = reference(params, batch["input_ids"][0], 3, 3, ("global", "local"))
    np.testing.assert_allclose(run(batch).logits[0], logits, atol=2e-5)
    wide, _ = reference(params, batch["input_ids"][0], 3, 9, ("global", "local"))
    assert np.abs(wide - logits).max() > 1e-2  # otherwise the window has no effect


def test_logit_positions_and_choices_equal_the_full_output(small):
    _, _, run = small
    batch = text()
    full = run(batch)
    positions = np.array([[0, 8], [3, 1], [5, 5]], np.int32)
    actual = run({**batch, "logit_positions": positions})
    for row in range(3):
        np.testing.assert_allclose(actual.logits[row], full.logits[row][positions[row]], atol=1e-5)
    last = full.features["hidden_2"][np.arange(3), positions[:, 0]]
    np.testing.assert_allclose(actual.features["pooled"], last, atol=1e-5)
    apart = run({name: x[:, None] for name, x in batch.items()})
    assert apart.features["hidden_1"].shape == (3, 1, 9, 12)
    np.testing.assert_allclose(apart.logits[:, 0], full.logits, atol=1e-5)


def test_a_text_of_padding_only_has_finite_gradients(small):
    model, params, _ = small
    batch = {name: np.zeros((3, 9), np.int32) for name in text()}

    def total(params):
        key = jax.random.key(0)
        return model.apply(Variables(params, {}), batch, train=True, key=key)[0].logits.sum()

    grads = jax.jit(jax.grad(total))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_bfloat16_and_dropout():
    model = gpt_neo(GptNeoOptions(**SIZES, dropout=0.3, dtype="bfloat16"))
    variables = jax.jit(model.init)(jax.random.key(0), text())
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def run(seed, train):
        key = jax.random.key(seed)
        return model.apply(variables, text(), train=train, key=key)[0]

    run = jax.jit(run, static_argnums=1)
    first = run(0, True)
    assert first.logits.dtype == first.features["pooled"].dtype == jnp.float32
    assert first.features["hidden_1"].dtype == jnp.bfloat16
    assert np.abs(first.logits - run(1, True).logits).max() > 1e-3
    np.testing.assert_array_equal(run(0, False).logits, run(1, False).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("global",)}, 'use "global" or "local" for each of 2 layers'),
        ({"layers": ("global", "near")}, 'use "global" or "local"'),
        ({"num_heads": 5}, "gpt_neo: num_heads is 5: it must divide the width, 12"),
        ({"window": 0}, "gpt_neo: window is 0"),
        ({"attention_dropout": 2}, "gpt_neo: attention_dropout is 2"),
        ({"activation": "mish"}, "gpt_neo: activation is 'mish'"),
    ],
)
def test_invalid_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        models.build("gpt_neo", num_classes=2, **{**SIZES, **options})
