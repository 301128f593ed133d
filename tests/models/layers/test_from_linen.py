"""Conversion of Flax modules."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.nnx import bridge

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


class Normed(nn.Module):
    """Batch norm and dropout, in evaluation or not."""

    evaluates: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=self.evaluates, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dropout(0.5, deterministic=self.evaluates)(x)


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, training: bool = False):
        return Normed(not training)(x)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic: bool = True):
        return Normed(deterministic)(x)


class Averaged(nn.Module):
    @nn.compact
    def __call__(self, x, use_running_average=False):
        return Normed(use_running_average)(x)


class Bridged(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(x))


class BridgedInside(nn.Module):
    @nn.compact
    def __call__(self, x):
        return bridge.to_linen(Bridged, name="inner")(x)


MODES = {
    "training": Training(),
    "deterministic": Deterministic(),
    "use_running_average": Averaged(),
    "nnx": bridge.to_linen(Bridged),
    "nnx inside": BridgedInside(),
}


@pytest.mark.parametrize("flag", MODES)
def test_every_module_trains_in_training_and_evaluates_in_evaluation(flag):
    model = models.from_linen(MODES[flag])
    variables = _init(model)

    def run(batch, train, seed=0):
        return model.apply(variables, batch, train=train, key=jax.random.key(seed))

    outputs, stats = run(BATCH, True)
    dropped = np.asarray(outputs.logits) == 0
    assert 0 < dropped.sum() < dropped.size
    assert not np.array_equal(dropped, np.asarray(run(BATCH, True, 1)[0].logits) == 0)
    old, new = jax.tree.leaves(variables.stats), jax.tree.leaves(stats)
    assert len(old) == 2  # a mean and a variance
    assert not any(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    # evaluation: no dropout, and no example depends on the others
    both, same = run(BATCH, False)
    assert same is variables.stats
    alone, _ = run({"image": BATCH["image"][:1]}, False)
    np.testing.assert_allclose(alone.logits[0], both.logits[0], rtol=1e-6)
    assert (np.asarray(both.logits) != 0).any(0).all()
    np.testing.assert_array_equal(both.logits, run(BATCH, False, 1)[0].logits)


def test_a_mode_that_no_argument_sets_is_refused_or_warned_of():
    with pytest.raises(UserError, match=r"Normed: BatchNorm, Dropout would train in evaluation"):
        _init(models.from_linen(Normed(False)))
    with pytest.warns(UserWarning, match="Normed: BatchNorm, Dropout will evaluate in training"):
        _init(models.from_linen(Normed(True)))
    with pytest.raises(UserError, match=r'"use_running_average" must be passed .* take `train`'):
        _init(models.from_linen(nn.Sequential([nn.Dense(3), nn.BatchNorm()])))
    attention = nn.MultiHeadDotProductAttention(1, dropout_rate=0.1, deterministic=False)
    batch = {"image": np.ones((2, 3, 4), np.float32)}
    with pytest.raises(UserError, match="MultiHeadDotProductAttention would train"):
        _init(models.from_linen(nn.Sequential([attention])), batch)
    with warnings.catch_warnings():  # a rate of 0 is no dropout
        warnings.simplefilter("error")
        _init(models.from_linen(nn.Sequential([nn.Dropout(0.0, deterministic=True)])))


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x, mask, train: bool):
        return nn.Dense(3)(x * mask)


class Noisy(nn.Module):
    always: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        draws = train or self.always
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if draws else 0.0
        return x + noise


class Sown(nn.Module):
    collection: str

    @nn.compact
    def __call__(self, x, train: bool):
        self.sow(self.collection, "mean", x.mean())
        return nn.Dense(3)(x)


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        count = self.variable("counts", "seen", jnp.zeros, ())
        count.value = count.value + len(x)
        return nn.Dense(3)(x)


def test_other_needs_of_a_module_are_met_or_named():
    for wrong in (Bridged(rngs=nnx.Rngs(0)), Masked):
        with pytest.raises(
            UserError, match=r"not an instance of flax\.linen\.Module; use from_nnx"
        ):
            models.from_linen(wrong)
    with pytest.raises(UserError, match="Masked must be called with 'mask' too"):
        models.from_linen(Masked())
    noisy, key = models.from_linen(Noisy()), jax.random.key(1)
    variables = _init(noisy)
    first, again = (noisy.apply(variables, BATCH, train=True, key=key)[0] for _ in range(2))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert np.std(first.logits - BATCH["image"]) > 0.3
    with pytest.raises(UserError, match=r"Noisy: .* in training needs a key"):
        noisy.apply(variables, BATCH, train=True)
    with pytest.raises(UserError, match="Noisy draws random numbers in evaluation"):
        models.from_linen(Noisy(always=True)).apply(variables, BATCH, train=False, key=key)

    sown = models.from_linen(Sown("intermediates"))
    assert sown.apply(_init(sown), BATCH, train=True)[1] == {}
    growing = models.from_linen(Sown("losses"))
    with pytest.raises(UserError, match="Sown: the collection 'losses' changes its shape"):
        growing.apply(_init(growing), BATCH, train=True)

    counting = models.from_linen(Counting())
    variables = _init(counting)
    _, stats = counting.apply(variables, BATCH, train=True)
    assert stats["counts"]["seen"] == variables.stats["counts"]["seen"] + 2
    with pytest.raises(UserError, match=r"Counting: .*immutable"):
        counting.apply(variables, BATCH, train=False)


def test_spectral_norm_updates_its_vector_in_training_only():
    class Spectral(nn.Module):
        @nn.compact
        def __call__(self, x, update_stats):
            return nn.SpectralNorm(nn.Dense(3))(x, update_stats=update_stats)

    model = models.from_linen(Spectral())
    variables = _init(model)
    _, stats = model.apply(variables, BATCH, train=True)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(variables.stats), strict=True)
    ]
    assert all(moved)
    assert model.apply(variables, BATCH, train=False)[1] is variables.stats
