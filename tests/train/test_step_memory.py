"""Memory of a step as reported by the compiler, its known parts, and one compilation."""

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
    cost = step_memory.step_cost(step, state, batch)
    assert cost is not None
    plain = tables.start("kd", "mlp")
    assert cost.parameters == memory_estimate.tree_bytes(
        plain.params
    )  # including the frozen teacher
    assert cost.optimizer == memory_estimate.tree_bytes(plain.opt)
    assert cost.inputs >= tables.batch()["image"].nbytes // devices  # "id" is not used
    assert cost.working > 0
    assert cost.total == sum(cost)
    assert COMPILED not in events_during(lambda: step(state, batch))


def test_a_restored_state_uses_the_program_of_a_new_one():
    """Arrays restored by orbax have a mesh, which would need another compilation."""
    layout = parallel.one_device()
    step, batch = layout.compile_step(tables.step("kd", "mlp")), layout.put(tables.batch())
    jax.block_until_ready(step(layout.place(tables.start("kd", "mlp")), batch))
    mesh = Mesh(np.array(jax.devices()[:1]), ("devices",))
    restored = jax.device_put(tables.start("kd", "mlp"), NamedSharding(mesh, PartitionSpec()))
    placed = layout.place(restored)
    assert COMPILED not in events_during(lambda: step(placed, batch))


def events_during(call):
    """Return the names of jax's timed events during a call."""
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    try:
        jax.block_until_ready(call())
    finally:
        jax.monitoring.clear_event_listeners()
    return seen


def test_lines():
    cost = step_memory.Cost(3 * 2**20, 2**20, 512, 10 * 2**30)
    assert step_memory.describe(cost) == "memory of a step: 10 GiB per device (10 GiB temporary)"
    assert not step_memory.warning(cost, 11 * 2**30)
    warning = step_memory.warning(cost, 2 * 2**30)
    assert "a step takes 10 GiB, but the device has 2 GiB: it will not fit" in warning
    for remedy in ("remat = True", "accumulate = 2", "bfloat16", "more devices"):
        assert remedy in warning


class Step:
    """A step whose compiler fails or reports no memory."""

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


def test_a_compiler_that_fails_or_reports_no_memory():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")
    with pytest.raises(RunError, match=r"does not fit the device \(RES.* Remedies, .*remat"):
        step_memory.step_cost(Step(error), None, None)
    assert step_memory.step_cost(Step(), None, None) is None
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        step_memory.step_cost(Step(jax.errors.JaxRuntimeError("INTERNAL: other")), None, None)
