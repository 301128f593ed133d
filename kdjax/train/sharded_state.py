"""Parameters and optimizer states that are divided over devices (FSDP).

Each array is divided along its largest axis that is a multiple of the devices; others are copied.
The compiler gathers the arrays of a layer where it needs them, and divides the gradients.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.train import multihost
from kdjax.train.parallel import AXIS, Layout, Mapped, blocking_on_cpu
from kdjax.types import PyTree, State


def shard_state(layout: Layout) -> Layout:
    """Return the layout of `parallel.mesh_data` with a divided state.

    Args:
      layout: from `mesh_data`.
    """
    mesh = Mesh(np.array(multihost.devices(layout.devices)), (AXIS,))
    copied = NamedSharding(mesh, PartitionSpec())

    def divided(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: NamedSharding(mesh, spec(x.shape, layout.devices)), tree)

    def shardings(state: State) -> State:
        rest = jax.tree.map(lambda _: copied, state)
        return rest._replace(params=divided(state.params), opt=divided(state.opt))

    def place(state: State) -> State:
        if multihost.count() > 1:
            return jax.tree.map(multihost.replicate_global, state, shardings(state))
        return jax.device_put(state, shardings(state), may_alias=False)

    def fetch(state: State) -> State:
        if multihost.count() == 1:
            return state
        gathered = jax.jit(lambda tree: tree, out_shardings=copied)(state)
        return multihost.local_copy(gathered)

    def compile_step(step: Mapped) -> Mapped:
        def divide(state: State, batch: Mapping[str, Any]) -> tuple[State, PyTree]:
            new, metrics = step(state, batch)
            divided_state = jax.lax.with_sharding_constraint(new, shardings(new))
            return divided_state, jax.lax.with_sharding_constraint(metrics, copied)

        return blocking_on_cpu(jax.jit(divide, donate_argnums=0))

    return layout._replace(place=place, fetch=fetch, compile_step=compile_step)


def spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """Return the division of an array along its largest axis that is a multiple of the devices.

    >>> tuple(spec((6, 8), 2))
    (None, 'data')
    """
    axes = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    if not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(AXIS if axis == largest else None for axis in range(largest + 1)))
