"""Conversion of Flax modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kdjax import models
from kdjax.errors import UserError

BATCH = {"image": np.arange(8, dtype=np.float32).reshape(2, 4)}


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(16, dtype=jnp.bfloat16)(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, x


def _init(model, batch=BATCH):
    return jax.jit(model.init)(jax.random.key(0), batch)


def test_a_module_with_another_input_key():
    model = models.from_linen(nn.Dense(3), input_key="x")
    batch = {"x": BATCH["image"]}
    variables = _init(model, batch)
    outputs, stats = model.apply(variables, batch, train=True)
    params = variables.params
    expected = batch["x"] @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5)
    assert outputs.features == stats == variables.stats == {}


def test_init_takes_shapes_for_a_batch():
    model = models.from_linen(nn.Dense(3))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), BATCH)
    variables = jax.jit(lambda key: model.init(key, shapes))(jax.random.key(0))
    np.testing.assert_array_equal(variables.params["kernel"], _init(model).params["kernel"])


def test_dropout_depends_on_the_key_in_training_only():
    model = models.from_linen(Dropped())
    variables = _init(model)

    def logits(train, seed):
        key = jax.random.key(seed)
        return np.array(model.apply(variables, BATCH, train=train, key=key)[0].logits)

    assert logits(True, 0).dtype == np.float32
    assert np.array_equal(logits(True, 0), logits(True, 0))
    assert not np.array_equal(logits(True, 0), logits(True, 1))
    assert np.array_equal(logits(False, 0), logits(False, 1))
    assert np.array_equal(logits(False, 0), model.apply(variables, BATCH, train=False)[0].logits)


def test_a_tuple_of_arrays_and_a_missing_input_are_errors():
    model = models.from_linen(Pair())
    with pytest.raises(UserError, match="Pair returns a tuple: return Outputs or logits"):
        model.apply(_init(model), BATCH, train=False)
    with pytest.raises(UserError, match=r'Pair reads batch\["image"\].*\[\'x\'\]'):
        model.init(jax.random.key(0), {"x": BATCH["image"]})
