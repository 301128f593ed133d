"""Language models: rows are tokens, and texts that share a row do not see each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.types import Model, Outputs, Variables

SIZES = {"vocab_size": 11, "width": 8, "num_layers": 2, "num_heads": 2, "max_length": 16}
FAMILIES = {"mistral": {"window": 2}, "gpt_neo": {"dropout": 0.0, "window": 2}}


def packed_batch():
    """Return two texts of 3 and 4 tokens in one row, then one of them alone and padded."""
    ids = jnp.array([[1, 2, 3, 4, 5, 6, 7, 0], [4, 5, 6, 7, 0, 0, 0, 0]])
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 0, 0, 0, 0]])
    label = jnp.array([[2, 3, 9, 5, 6, 7, 9, -1], [5, 6, 7, 9, -1, -1, -1, -1]])
    return {
        "input_ids": ids,
        "attention_mask": (segments > 0).astype(jnp.int32),
        "segment_ids": segments,
        "label": label,
        "mask": jnp.ones(2),
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_and_positions_never_cross_a_text(name):
    model = models.build_language_model(name, num_classes=11, **{**SIZES, **FAMILIES[name]})
    batch = packed_batch()
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    # weights of .02 hide what the layers see
    variables = variables._replace(params=jax.tree.map(lambda x: 20 * x, variables.params))
    run = jax.jit(lambda b: model.apply(variables, b, train=False)[0])
    outputs = run(batch)
    logits = outputs.features["token_logits"]
    np.testing.assert_allclose(logits[0, 3:7], logits[1, :4], atol=1e-4)
    other = {**batch, "input_ids": batch["input_ids"].at[0, 1].set(8)}
    changed = run(other).features["token_logits"]
    assert np.array_equal(changed[0, 3:7], logits[0, 3:7])
    assert not np.allclose(changed[0, 1:3], logits[0, 1:3], atol=1e-3)
    assert outputs.logits.shape == (16, 11)
    assert outputs.features["row_mask"].sum() == 11
    assert outputs.features["row_label"].tolist()[:8] == [2, 3, 9, 5, 6, 7, 9, 0]


def test_a_masked_row_has_no_tokens():
    own = models.as_language_model(
        Model(
            lambda key, b: Variables({}, {}),
            lambda v, b, **_: (Outputs(jnp.zeros((2, 8, 3)), {}), {}),
        )
    )
    batch = {**packed_batch(), "mask": jnp.array([1.0, 0.0])}
    outputs, _ = own.apply(Variables({}, {}), batch, train=False)
    assert outputs.features["row_mask"].sum() == 7
    assert outputs.features["token_mask"][1].sum() == 0


def test_other_networks_are_refused():
    with pytest.raises(UserError, match='model "bert" is no decoder of texts; there are gpt_neo'):
        models.build_language_model("bert", num_classes=11)
    with pytest.raises(UserError, match='model "llama" has no option "depth"'):
        models.build_language_model("llama", num_classes=11, depth=3)
