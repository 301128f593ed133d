"""Gradient accumulation and rematerialisation give the same step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, models
from kdjax.distill import co_train
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.train import parallel
from kdjax.train.step import make_step
from tests.distill.methods import tables
from tests.faults.commands import base
from tests.train.test_devices import SPEC

CLOSE = {"rtol": 2e-5, "atol": 2e-6}  # float32 sums in another order


def after(method, kind="mlp", layout=None, wrap=None, **options):
    """Return state and metrics after two steps, on the host."""
    place = parallel.one_device() if layout is None else layout(4, stacked_batch=False)
    table = tables.players(method, kind, place.axis_name)
    if wrap is not None:
        table = {role: p._replace(model=wrap(p.model)) for role, p in table.items()}
    step = make_step(
        co_train(table, axis_name=place.axis_name),
        tables.optimizers(table),
        place.axis_name,
        prepare=data.prepare(SPEC, augment="none"),
        **options,
    )
    compiled, state = place.compile_step(step), place.place(tables.start(method, kind))
    for number in range(2):
        state, metrics = compiled(state, place.put(tables.batch(number)))
    state = place.fetch(state)
    return jax.device_get((state.params, state.stats, state.opt)), place.read(metrics)


def assert_close(actual, expected, **close):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **close)


@functools.cache
def coupled(accumulate):
    return after("coupled", accumulate=accumulate)


def test_parts_equal_one_large_batch():
    assert_close(after("bdkd", accumulate=4), after("bdkd"), **CLOSE)


def test_parts_do_not_depend_on_the_devices():
    """Terms that couple examples use one part, which is the same on all devices."""
    actual = after("coupled", layout=parallel.pmap_data, accumulate=2)
    assert_close(actual, coupled(2), rtol=5e-5, atol=5e-6)


def test_the_parts_of_batch_norm_are_the_same_on_a_mesh():
    actual = after("alone", "cnn", parallel.mesh_data, accumulate=2)
    assert_close(actual, after("alone", "cnn", accumulate=2), rtol=5e-5, atol=5e-6)


def test_coupled_terms_use_one_part():
    full, parts = (coupled(count)[1] for count in (1, 2))
    name = "student/correlation/raw"
    assert abs(float(full[name]) - float(parts[name])) > 1e-4
    assert np.isclose(full["student/ce/raw"], parts["student/ce/raw"], rtol=0.02)


def test_a_role_with_a_pause_is_an_error():
    with pytest.raises(ValueError, match="teacher may pause, by the whole batch"):
        after("switokd", accumulate=2)
    pause = {"name": "switokd", "watch": "student"}
    with pytest.raises(UserError, match=r"roles\.teacher\.pause depends on the full batch"):
        build(base(accumulate=2, roles__teacher__pause=pause))


def test_parts_must_divide_the_batch():
    with pytest.raises(UserError, match=r"batch_size is 32, not a multiple of .* = 5 x 1"):
        build(base(accumulate=5))
    with pytest.raises(UserError, match=r"config\.variants\.b: batch_size is 32, not a multiple"):
        build(base(variants={"a": {}, "b": {"accumulate": 3}}))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_remat_does_not_change_the_results(kind):
    (once, metrics), (twice, again) = (
        after("bdkd", kind, wrap=w) for w in (None, models.with_remat)
    )
    if kind == "mlp":
        assert tables.same(once, twice)
    # with convolutions the compiler fuses, hence rounds, differently
    assert_close((twice, again), (once, metrics), **CLOSE)


def test_remat_saves_fewer_activations():
    """The saved activations are the leaves of the pullback, in bytes."""
    model, batch = models.build("resnet8", num_classes=4), {"image": jnp.ones((8, 32, 32, 3))}
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)

    def saved_bytes(model):
        def pullback(params, stats):
            def forward(params):
                v = variables._replace(params=params, stats=stats)
                return model.apply(v, batch, train=True)[0].logits

            return jax.vjp(forward, params)[1]

        actual = jax.eval_shape(pullback, variables.params, variables.stats)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(actual))

    share = saved_bytes(models.with_remat(model)) / saved_bytes(model)
    assert 0.1 < share < 0.5  # outputs of convolutions, not of the operations between them


def test_a_frozen_role_has_no_remat():
    built = build(base(roles__student__remat=True))
    assert built.config.roles["student"].remat is True
    assert built.config.roles["teacher"].remat is False
