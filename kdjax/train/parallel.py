"""One step, many devices: where states and batches live, and the step mapped over them.

- `one_device`: `jit`.
- `pmap_data`: the batch is divided over the devices of a `pmap`, the state replicated; the step
  must have been built with `axis_name=AXIS`.
- `pmap_members`: a sweep's members are divided over the devices, `pmap(vmap(step))`; nothing is
  communicated, every device sees the whole batch.
- `mesh_data`: as `pmap_data`, but under `jit` with shardings; the step has no axis name.

With several processes each of them hands over its own rows of a batch (`data.rows_of`), and gets
its states, metrics and outputs back whole; `pmap_members` is for one process.

A layout is a handful of functions; training and evaluation know nothing else of devices.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.train import multihost
from kdjax.types import PyTree, State

AXIS = "data"
# state, host batch (the same leading member axis on all its leaves, or none), constant arrays
Mapped = Callable[..., Any]


class Layout(NamedTuple):
    """Where things live.

    `place(state)` and `fetch(state)` move a plain (perhaps stacked) state to the devices and
    back. `put(batch)` moves a host batch, `share(arrays)` constants, and both may then be merged
    into the batch of a step. `compile_step(step)` maps and compiles `step(state, batch)`, which
    consumes its state; `compile_map(f)` does so for `f(state, batch) -> tree`, without. `read`
    brings metrics to the host; `join` per-example outputs [members, batch, ...] of the whole batch.
    """

    devices: int
    axis_name: str | None
    place: Callable[[PyTree], PyTree]
    fetch: Callable[[PyTree], PyTree]
    put: Callable[[Mapping[str, Any]], PyTree]
    share: Callable[[PyTree], PyTree]
    compile_step: Callable[[Mapped], Mapped]
    compile_map: Callable[[Mapped], Mapped]
    read: Callable[[PyTree], PyTree]
    join: Callable[[PyTree], PyTree]


def one_device() -> Layout:
    """Plain `jit` on the default device."""
    same = lambda tree: tree  # noqa: E731
    # named, so that a state from a checkpoint, which remembers a mesh, needs no program of its own
    (device,) = jnp.zeros(()).devices()
    return Layout(
        devices=1,
        axis_name=None,
        # a copy: a step consumes its state
        place=lambda tree: jax.device_put(tree, device, may_alias=False),
        fetch=same,
        put=same,  # the call itself takes host arrays in, in less time than `device_put`
        share=jax.device_put,
        compile_step=lambda step: jax.jit(step, donate_argnums=0),
        compile_map=jax.jit,
        read=jax.device_get,
        join=jax.device_get,
    )


def pmap_data(devices: int, *, stacked_batch: bool) -> Layout:
    """Divide each batch over `devices`.

    Args:
      devices: how many, in all processes; the batch size must be a multiple.
      stacked_batch: host batches carry a leading member axis.
    """
    # to each process a pmap shows its own devices
    own, everyone = multihost.local_devices(devices), multihost.devices(devices)
    sharding = NamedSharding(Mesh(np.array(own), (AXIS,)), PartitionSpec(AXIS))
    copy = lambda tree: _spread(tree, len(own), sharding)  # noqa: E731
    where: dict[str, Any] = {} if len(own) == devices else {"devices": everyone}

    def put(batch: Mapping[str, Any]) -> PyTree:
        divide = lambda x: _divide(np.asarray(x), len(own), axis=int(stacked_batch))  # noqa: E731
        return jax.device_put(jax.tree.map(divide, dict(batch)), sharding)

    def join(tree: PyTree) -> PyTree:
        # [devices, members, batch, ...]
        rows = jax.tree.map(lambda x: np.concatenate(list(x), axis=1), jax.device_get(tree))
        return multihost.whole(rows, axis=1)

    return Layout(
        devices=devices,
        axis_name=AXIS,
        place=copy,
        fetch=lambda tree: jax.tree.map(lambda x: x[0], tree),
        put=put,
        share=copy,
        compile_step=lambda f: _in_turn(jax.pmap(f, AXIS, donate_argnums=0, **where)),
        compile_map=lambda f: _in_turn(jax.pmap(f, AXIS, **where)),
        read=lambda tree: jax.tree.map(lambda x: x[0], jax.device_get(tree)),
        join=join,
    )


def pmap_members(devices: int, axes: State, *, stacked_batch: bool) -> Layout:
    """Divide a sweep's members over `devices`; their number must be a multiple.

    Args:
      devices: how many.
      axes: 0 where the state is stacked by member, None where it is shared.
      stacked_batch: host batches carry a leading member axis.
    """
    sharding = _sharding(devices, PartitionSpec(AXIS))
    copy = lambda tree: _spread(tree, devices, sharding)  # noqa: E731
    divide = lambda x: _divide(x, devices, axis=0)  # noqa: E731

    def place(state: State) -> State:
        parts = _by_axis(axes, state, divide, lambda x: _copies(x, devices))
        return jax.device_put(parts, sharding)

    def fetch(state: State) -> State:
        return _by_axis(axes, state, _merge, lambda x: x[0])

    def put(batch: Mapping[str, Any]) -> PyTree:
        if not stacked_batch:
            return copy(dict(batch))
        return jax.device_put(jax.tree.map(lambda x: divide(np.asarray(x)), dict(batch)), sharding)

    merge = lambda tree: jax.tree.map(_merge, jax.device_get(tree))  # noqa: E731
    return Layout(
        devices=devices,
        axis_name=None,
        place=place,
        fetch=fetch,
        put=put,
        share=copy,
        compile_step=lambda f: jax.pmap(f, donate_argnums=0),
        compile_map=jax.pmap,
        read=merge,
        join=merge,
    )


def mesh_data(devices: int, *, stacked_batch: bool) -> Layout:
    """Divide each batch over a device mesh under `jit`; the compiler places the collectives."""
    whole = _sharding(devices, PartitionSpec())
    spec = PartitionSpec(None, AXIS) if stacked_batch else PartitionSpec(AXIS)
    divided = _sharding(devices, spec)
    if multihost.count() > 1:
        return _mesh_of_processes(devices, whole, divided)
    return Layout(
        devices=devices,
        axis_name=None,
        place=lambda tree: jax.device_put(tree, whole, may_alias=False),
        fetch=lambda tree: tree,
        put=lambda batch: jax.device_put(dict(batch), divided),
        share=lambda tree: jax.device_put(tree, whole),
        compile_step=lambda f: _in_turn(jax.jit(f, donate_argnums=0, out_shardings=(whole, whole))),
        compile_map=lambda f: _in_turn(jax.jit(f, out_shardings=whole)),
        read=jax.device_get,
        join=jax.device_get,
    )


def _mesh_of_processes(devices: int, whole: NamedSharding, divided: NamedSharding) -> Layout:
    """`mesh_data` where no process can reach all devices."""

    def put(batch: Mapping[str, Any]) -> PyTree:
        rows = {name: np.asarray(x) for name, x in batch.items()}
        return {n: jax.make_array_from_process_local_data(divided, x) for n, x in rows.items()}

    spread = lambda tree: multihost.everywhere(tree, whole)  # noqa: E731
    return Layout(
        devices=devices,
        axis_name=None,
        place=spread,
        fetch=multihost.own_copy,
        put=put,
        share=spread,
        compile_step=lambda f: _in_turn(jax.jit(f, donate_argnums=0, out_shardings=(whole, whole))),
        compile_map=lambda f: _in_turn(jax.jit(f, out_shardings=whole)),
        read=jax.device_get,
        join=jax.device_get,
    )


def _sharding(devices: int, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.array(multihost.devices(devices)), (AXIS,)), spec)


def _spread(tree: PyTree, devices: int, sharding: NamedSharding) -> PyTree:
    """Give every device a copy, as pmap's leading axis."""
    return jax.device_put(jax.tree.map(lambda x: _copies(x, devices), tree), sharding)


def _copies(x: Any, devices: int) -> Any:
    """[...] -> [devices, ...]; typed keys have no `repeat`, but broadcast."""
    broadcast = jnp.broadcast_to if isinstance(x, jax.Array) else np.broadcast_to
    return broadcast(x, (devices, *x.shape))


def _divide(x: Any, devices: int, *, axis: int) -> Any:
    """[..., n, ...] -> [devices, ..., n / devices, ...]."""
    shape = (*x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :])
    return x.reshape(shape) if axis == 0 else np.moveaxis(x.reshape(shape), axis, 0)


def _merge(x: Any) -> Any:
    """[devices, members, ...] -> [devices x members, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _by_axis(axes: State, state: State, stacked: Callable, shared: Callable) -> State:
    """Apply one function to what is stacked by member and another to what is not."""

    def apply(axis: int | None, tree: PyTree) -> PyTree:
        return jax.tree.map(stacked if axis == 0 else shared, tree)

    return jax.tree.map(apply, axes, state, is_leaf=lambda x: x is None)


class _InTurn:
    """A compiled function whose calls wait for their results."""

    def __init__(self, f: Any) -> None:
        """Wrap it."""
        self._f, self.lower = f, f.lower

    def __call__(self, *args: Any) -> Any:
        """Call it and wait."""
        return jax.block_until_ready(self._f(*args))


def _in_turn(f: Mapped) -> Mapped:
    """On simulated CPU devices, wait for each call before the next.

    Programs with collectives that queue up on the CPU's few threads block one another until
    XLA aborts the process (seen with 4 devices on 2 cores). Accelerators need no such wait.
    """
    if jax.default_backend() != "cpu":
        return f
    return _InTurn(f)
