"""What a step takes: the compiler's account, its parts known beforehand, and one compilation."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.errors import RunError
from kdjax.train import memory_estimate, parallel, step_memory
from tests.distill.methods import tables

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize("devices", [1, 2])
def test_parts_and_one_compilation(devices):
    layout = parallel.one_device()
    if devices > 1:
        layout = parallel.pmap_data(devices, stacked_batch=False)
    step = layout.compile_step(tables.step("kd", "mlp", axis_name=layout.axis_name))
    state, batch = layout.place(tables.start("kd", "mlp")), layout.put(tables.batch())
    found = step_memory.step_cost(step, state, batch)
    assert found is not None
    plain = tables.start("kd", "mlp")
    assert found.parameters == memory_estimate.tree_bytes(
        plain.params
    )  # of the frozen teacher as well
    assert found.optimizer == memory_estimate.tree_bytes(plain.opt)
    assert found.inputs >= tables.batch()["image"].nbytes // devices  # "id" is not looked at
    assert found.working > 0
    assert found.total == sum(found)
    assert COMPILED not in seen_while(lambda: step(state, batch))


def test_a_state_from_a_checkpoint_has_the_program_of_a_fresh_one():
    """Arrays that orbax restored remember a mesh, which would be another program to compile."""
    layout = parallel.one_device()
    step, batch = layout.compile_step(tables.step("kd", "mlp")), layout.put(tables.batch())
    jax.block_until_ready(step(layout.place(tables.start("kd", "mlp")), batch))
    mesh = Mesh(np.array(jax.devices()[:1]), ("devices",))
    restored = jax.device_put(tables.start("kd", "mlp"), NamedSharding(mesh, PartitionSpec()))
    placed = layout.place(restored)
    assert COMPILED not in seen_while(lambda: step(placed, batch))


def seen_while(call):
    """The names of jax's timed events during a call."""
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    try:
        jax.block_until_ready(call())
    finally:
        jax.monitoring.clear_event_listeners()
    return seen


def test_lines():
    found = step_memory.Cost(3 * 2**20, 2**20, 512, 10 * 2**30)
    assert (
        step_memory.describe(found) == "a step takes 10 GiB of each device, 10 GiB of it temporary"
    )
    assert not step_memory.warning(found, 11 * 2**30)
    said = step_memory.warning(found, 2 * 2**30)
    assert "a step takes 10 GiB, but the device has 2 GiB: it will not fit" in said
    for remedy in ("remat = True", "accumulate = 2", "bfloat16", "more devices"):
        assert remedy in said


class Step:
    """A step whose compiler refuses, or does not tell."""

    def __init__(self, error=None):
        self.error = error

    def lower(self, *_):
        return self

    def compile(self):
        if self.error is not None:
            raise self.error
        return self

    def memory_analysis(self):
        return None


def test_a_compiler_that_refuses_or_does_not_tell():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")
    with pytest.raises(RunError, match=r"does not fit the device \(RES.* Remedies, .*remat"):
        step_memory.step_cost(Step(error), None, None)
    assert step_memory.step_cost(Step(), None, None) is None
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        step_memory.step_cost(Step(jax.errors.JaxRuntimeError("INTERNAL: other")), None, None)
