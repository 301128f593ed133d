"""The bridge to Flax, and adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kdjax import models
from kdjax.types import Outputs, UserError

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


class Whole(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        pooled = nn.BatchNorm(use_running_average=not train)(x)
        return Outputs(nn.Dense(3)(pooled), {"pooled": pooled})


def _init(model, batch=BATCH):
    return jax.jit(model.init)(jax.random.key(0), batch)


def test_a_bare_module_with_its_own_input_key():
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


def test_dropout_follows_the_key_in_training_only():
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


def test_a_tuple_of_arrays_and_a_missing_input_are_refused():
    model = models.from_linen(Pair())
    with pytest.raises(UserError, match="Pair returns a tuple: return Outputs or logits"):
        model.apply(_init(model), BATCH, train=False)
    with pytest.raises(UserError, match=r'Pair reads batch\["image"\].*\[\'x\'\]'):
        model.init(jax.random.key(0), {"x": BATCH["image"]})


def test_an_adapter_is_trained_with_the_model():
    plain = models.from_linen(Whole())
    model = models.with_adapter(plain, layer="pooled", width=7)
    variables = _init(model)
    assert set(variables.params) == {"network", "adapter"}
    assert jax.tree.map(jnp.shape, variables.params["adapter"]) == {
        "kernel": (4, 7),
        "bias": (7,),
    }

    def loss(params):
        outputs, stats = model.apply(variables._replace(params=params), BATCH, train=True)
        return (outputs.features["pooled_adapted"] ** 2).mean(), (outputs, stats)

    gradients, (outputs, stats) = jax.grad(loss, has_aux=True)(variables.params)
    assert float(jnp.abs(gradients["adapter"]["kernel"]).max()) > 0
    assert float(jnp.abs(gradients["network"]["BatchNorm_0"]["scale"]).max()) > 0
    alone, moved = plain.apply(
        variables._replace(params=variables.params["network"]), BATCH, train=True
    )
    np.testing.assert_array_equal(outputs.logits, alone.logits)
    assert jax.tree.structure(stats) == jax.tree.structure(moved)
    assert model.apply(variables, BATCH, train=False)[1] is variables.stats


def test_an_adapter_on_a_map_acts_on_its_channels():
    images = {"image": jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)}
    model = models.build("cnn", num_classes=3, widths=(4, 8))
    model = models.with_adapter(model, layer="stage2", width=5)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs, _ = jax.eval_shape(lambda v, b: model.apply(v, b, train=True), variables, images)
    assert outputs.features["stage2_adapted"].shape == (2, 2, 2, 5)


def test_adapter_mistakes():
    model = models.from_linen(Whole())
    with pytest.raises(UserError, match='no feature "stage9"; the model has: pooled'):
        models.with_adapter(model, layer="stage9", width=3).init(jax.random.key(0), BATCH)
    with pytest.raises(UserError, match="width is 0"):
        models.with_adapter(model, layer="pooled", width=0)
    with pytest.raises(UserError, match="kind is 'conv'"):
        models.with_adapter(model, layer="pooled", width=3, kind="conv")
