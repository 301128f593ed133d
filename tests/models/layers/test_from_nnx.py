"""Conversion of Flax NNX modules; each is compared with a linen module of the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from kdjax import models
from kdjax.errors import UserError
from kdjax.types import Outputs, Variables

BATCH = {"image": np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)}


class Linen(nn.Module):
    axis: str | None = None

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8, name="first")(x)
        norm = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis, name="norm")
        x = nn.relu(norm(x))
        return Outputs(nn.Dense(3, name="last")(x), {"pooled": x})


class Twin(nnx.Module):
    def __init__(self, axis=None, *, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, axis_name=axis, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        self.sow(nnx.Intermediate, "pooled", x)
        return self.last(x)


class Dropped(nnx.Module):
    def __init__(self, *, rngs):
        self.dropouts = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x, deterministic: bool):
        assert self.dropouts[0].deterministic == deterministic
        for dropout in self.dropouts:
            self.sow(nnx.Intermediate, "dropped", x := dropout(x))
        return x


def twins(axis=None):
    linen = models.from_linen(Linen(axis))
    return linen, models.from_nnx(lambda rngs: Twin(axis, rngs=rngs))


def gradients(model):
    def loss(params, stats, batch):
        outputs, stats = model.apply(Variables(params, stats), batch, train=True)
        value = jnp.mean(outputs.logits**2) + jnp.mean(outputs.features["pooled"])
        return value, (outputs, stats)

    return jax.grad(loss, has_aux=True)


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), actual, expected
    )


@pytest.fixture(scope="module")
def members():
    """Return the stacked params of two members."""
    init = jax.jit(jax.vmap(twins()[1].init, in_axes=(0, None)))
    return init(jax.random.split(jax.random.key(0)), BATCH)


def test_a_factory_draws_weights_by_the_key_and_a_module_keeps_its_own(members):
    flat = models.flatten(members)
    assert sorted(name for name in flat if name.startswith("stats/")) == [
        "stats/norm/mean",
        "stats/norm/var",
    ]
    assert "params/first/kernel" in flat
    first, second = flat["params/first/kernel"]
    assert not np.array_equal(first, second)
    module = Twin(rngs=nnx.Rngs(3))
    variables = models.from_nnx(module).init(jax.random.key(0), BATCH)
    np.testing.assert_array_equal(variables.params["last"]["kernel"], module.last.kernel[...])


def test_a_sweep_with_remat_equals_the_linen_twin(members):
    def run(model, stats):
        grad = jax.vmap(gradients(models.with_remat(model)), in_axes=(0, 0, None))
        return jax.jit(grad)(members.params, stats, BATCH)

    linen, twin = twins()
    grads, (outputs, stats) = run(linen, {"batch_stats": members.stats})
    own_grads, (own_outputs, own_stats) = run(twin, members.stats)
    assert_close(own_grads, grads)
    assert_close(own_outputs, outputs)
    assert_close(own_stats, stats["batch_stats"])
    assert not np.allclose(own_stats["norm"]["mean"], members.stats["norm"]["mean"])


def test_batch_norm_over_devices_equals_the_linen_twin(members):
    params, stats = jax.tree.map(lambda x: x[0], tuple(members))
    batch = {"image": BATCH["image"].reshape(8, 2, 4)}

    def run(model, stats):
        return jax.pmap(gradients(model), "data", in_axes=(None, None, 0))(params, stats, batch)

    linen, twin = twins("data")
    grads, (outputs, new) = run(linen, {"batch_stats": stats})
    own_grads, (own_outputs, own_new) = run(twin, stats)
    assert_close(own_grads, grads)
    assert_close(own_outputs, outputs)
    assert_close(own_new, new["batch_stats"])


def test_evaluation_returns_the_same_stats(members):
    variables = jax.tree.map(lambda x: x[0], members)
    linen, twin = twins()
    outputs, stats = twin.apply(variables, BATCH, train=False)
    assert stats is variables.stats
    same = variables._replace(stats={"batch_stats": variables.stats})
    assert_close(outputs, linen.apply(same, BATCH, train=False)[0])


def test_dropout_depends_on_the_key_in_training_only():
    model = models.from_nnx(Dropped)
    variables = model.init(jax.random.key(0), BATCH)
    assert variables == ({}, {})

    def run(train, seed):
        return model.apply(variables, BATCH, train=train, key=jax.random.key(seed))[0]

    first, again, other = run(True, 0), run(True, 0), run(True, 1)
    assert sorted(first.features) == ["dropped/0", "dropped/1"]
    np.testing.assert_array_equal(first.logits, again.logits)
    assert not np.array_equal(first.logits, other.logits)
    np.testing.assert_array_equal(run(False, 0).logits, BATCH["image"])
    masks = [np.asarray(first.features["dropped/0"]) == 0, np.asarray(first.logits) == 0]
    assert masks[0].sum() < masks[1].sum()  # the second layer drops others
    with pytest.raises(UserError, match="Dropped: dropout in training needs a key"):
        jax.jit(lambda: model.apply(variables, BATCH, train=True))()


class Named(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.label = nnx.Variable("a name")

    def __call__(self, x):
        return self.layer(x)


class Growing(nnx.Module):
    def __init__(self, rngs):
        self.seen = nnx.BatchStat(jnp.zeros((1, 4)))

    def __call__(self, x):
        self.seen.set_value(jnp.concatenate([self.seen[...], x]))
        return x


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs

    def __call__(self, x):
        return x + self.rngs.normal(x.shape)


def test_what_cannot_be_a_model_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"Named\.label holds a str, but the state .* is arrays"):
        models.from_nnx(Named)
    with pytest.raises(UserError, match=r"the factory makes a Linen, not a flax\.nnx\.Module"):
        models.from_nnx(lambda rngs: Linen())
    with pytest.raises(UserError, match="neither an NNX module nor a function of rngs"):
        models.from_nnx(3)
    with pytest.raises(UserError, match="Linear must be called with rngs alone"):
        models.from_nnx(nnx.Linear)
    growing = models.from_nnx(Growing)
    variables = growing.init(jax.random.key(0), BATCH)
    with pytest.raises(UserError, match=r"Growing: seen is \(1, 4\) before a step and \(17, 4\)"):
        growing.apply(variables, BATCH, train=True)
    noisy = models.from_nnx(Noisy)
    with pytest.raises(UserError, match="Noisy draws random numbers in evaluation"):
        noisy.apply(Variables({}, {}), BATCH, train=False)
    with pytest.raises(UserError, match=r'Noisy reads batch\["image"\]'):
        noisy.apply(Variables({}, {}), {"x": 1}, train=False)


def test_a_donated_state_leaves_the_instance_its_arrays():
    module = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    variables = jax.jit(lambda v: v, donate_argnums=0)(
        models.from_nnx(module).init(jax.random.key(0), BATCH)
    )
    np.testing.assert_array_equal(module.kernel[...], variables.params["kernel"])
