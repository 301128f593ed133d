"""Parameters and optimizer states over devices: their bytes, and a step that keeps them divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.models.text.llama import LlamaOptions, llama
from kdjax.train import parallel
from kdjax.train.optimizer import make_optimizer
from kdjax.train.sharded_state import shard_state, spec
from kdjax.types import State

DEVICES = 8


def state():
    """Return the state of a small decoder, most of whose arrays divide by eight."""
    model = llama(LlamaOptions(vocab_size=64, num_layers=2, width=32, num_heads=2))
    batch = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask")}
    params = {"student": jax.jit(model.init)(jax.random.key(0), batch).params}
    opt = {"student": make_optimizer("adamw")({"learning_rate": 0.1, "weight_decay": 0.0})}
    opt["student"] = opt["student"].init(params["student"])
    return State(jnp.int32(0), jax.random.key(0), params, {"student": {}}, opt, {"student": {}})


def on_one(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_each_device_holds_its_part():
    layout = shard_state(parallel.mesh_data(DEVICES, stacked_batch=False))
    plain = state()
    placed = layout.place(plain)
    for part in ("params", "opt"):
        size = sum(x.nbytes for x in jax.tree.leaves(getattr(plain, part)))
        share = on_one(getattr(placed, part)) / size
        assert share < 1.05 / DEVICES  # the step counts of the optimizer are copied
    assert layout.fetch(placed).params["student"]["word"]["embedding"].shape == (64, 32)

    def step(state, batch):
        params = jax.tree.map(lambda x: x + jnp.sum(batch["x"]), state.params)
        return state._replace(step=state.step + 1, params=params), {"loss": jnp.sum(batch["x"])}

    after, metrics = layout.compile_step(step)(placed, layout.put({"x": np.ones(DEVICES, "f4")}))
    assert layout.read(metrics)["loss"] == DEVICES
    assert on_one(after.params) * (DEVICES - 0.5) < on_one(layout.place(state()).params) * DEVICES
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b + DEVICES, rtol=1e-6),
        jax.device_get(layout.fetch(after).params),
        jax.device_get(plain.params),
    )


@pytest.mark.parametrize(
    ("shape", "right"),
    [
        ((6, 8), (None, "data")),
        ((16, 8), ("data",)),
        ((3, 5), ()),
        ((), ()),
        ((0, 8), (None, "data")),
    ],
)
def test_the_largest_axis_that_divides(shape, right):
    assert tuple(spec(shape, 4 if shape == (6, 8) else 8)) == right


def test_a_pmap_is_refused():
    with pytest.raises(UserError, match="shard_parameters is set, but parallel is 'pmap'"):
        build({"shard_parameters": True, "data": {"name": "digits"}, "roles": {}})
