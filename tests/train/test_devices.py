"""Eight simulated devices equal one, for every method and with batch norm.

The tolerance is that of float32 sums in another order: after three steps parameters of order 1
differ by at most a few 1e-6.
"""

import functools

import jax
import numpy as np
import pytest

from kdjax import data
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.train import parallel
from kdjax.train.sharded_state import shard_state
from kdjax.types import Spec
from tests.distill.methods import tables

CLOSE = {"rtol": 2e-5, "atol": 5e-6}
SPEC = Spec((8, 8, 1), tables.CLASSES, tuple("abcd"), (0.0,), (1.0,), 1.0)
LAYOUTS = {
    "one": parallel.one_device,
    "pmap": functools.partial(parallel.pmap_data, 8, stacked_batch=False),
    "mesh": functools.partial(parallel.mesh_data, 8, stacked_batch=False),
    "sharded": lambda: shard_state(parallel.mesh_data(8, stacked_batch=False)),
}


@functools.cache
def after(method, layout, kind="cnn", augment="none"):
    """Return state and metrics after three steps, on the host."""
    place = LAYOUTS[layout]()
    prepare = data.prepare(SPEC, augment=augment, padding=2)
    step = place.compile_step(tables.step(method, kind, axis_name=place.axis_name, prepare=prepare))
    state = place.place(tables.start(method, kind))
    for number in range(3):
        state, metrics = step(state, place.put(tables.batch(number)))
    state = place.fetch(state)
    return jax.device_get(state._replace(key=jax.random.key_data(state.key))), place.read(metrics)


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(actual)[0], jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, err_msg=jax.tree_util.keystr(path), **CLOSE)


@pytest.mark.parametrize("layout", ["pmap", "mesh"])
@pytest.mark.parametrize("method", tables.METHODS)
def test_eight_devices_equal_one(method, layout):
    one, eight = after(method, "one"), after(method, layout)
    assert int(eight[0].step) == 3
    assert_close(eight, one)


@pytest.mark.parametrize(("method", "kind"), [("kd", "cnn"), ("bdkd", "mlp")])
def test_a_divided_state_takes_the_same_steps(method, kind):
    assert_close(after(method, "sharded", kind), after(method, "one", kind))


@pytest.mark.parametrize("layout", ["pmap", "mesh"])
def test_terms_that_couple_examples_use_the_global_batch(layout):
    assert_close(after("coupled", layout, "mlp"), after("coupled", "one", "mlp"))


@pytest.mark.parametrize("layout", ["pmap", "mesh"])
def test_augmentation_does_not_depend_on_the_devices(layout):
    one = after("bdkd", "one", "mlp", "crop_flip")
    assert not tables.same(one[0].params, after("bdkd", "one", "mlp")[0].params)
    assert_close(after("bdkd", layout, "mlp", "crop_flip"), one)


SWEPT = {
    "seed": 0,
    "num_steps": 4,
    "batch_size": 16,
    "eval_batch_size": 48,
    "data": {"name": "synthetic", "num_classes": 4, "augment": "crop_flip", "on_device": True},
    "roles": {
        "teacher": {
            "model": {"name": "cnn", "widths": (4,)},
            "terms": {"ce": {}, "forward_kl": {"toward": "student"}},
        },
        "student": {
            "model": {"name": "mlp", "hidden": (8,)},
            "terms": {"ce": {}, "balanced_kl": {"toward": "teacher"}},
        },
    },
    "sweep": {
        "seed": (0, 1),
        # small: at rates of 1 rounding grows tenfold in each step
        "roles.*.optimizer.learning_rate": tuple(0.01 * (1 + i) for i in range(2)),
    },
    "sweep_mode": "zip",
}


@functools.cache
def sweep_after(devices, over_members):
    """Run a program as in `run`: state, metrics, gradient norms and predictions."""
    run = build({**SWEPT, "devices": devices, "members_over_devices": over_members})
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(range(2))), {})
    layout, batches = program.layout, device_batches(run, program, 0)
    state = layout.place(state)
    norms = layout.read(program.grad_norms(state, next(device_batches(run, program, 0))))
    for _ in range(2):
        state, metrics = program.step(state, next(batches))
    batch = next(run.source.evals["test"]())
    logits = program.eval_layout.join(program.predict(state, program.eval_layout.put(batch)))
    state = jax.device_get(layout.fetch(state))
    state = state._replace(key=np.asarray(jax.random.key_data(state.key)))
    return state, layout.read(metrics), norms, logits


@pytest.mark.parametrize("over_members", [True, False], ids=["members", "batch"])
def test_a_sweep_over_devices(over_members):
    assert_close(sweep_after(2, over_members), sweep_after(1, True))
