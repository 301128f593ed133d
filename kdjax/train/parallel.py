"""One step on many devices: placement of states and batches, and the step mapped over devices.

- `one_device`: `jit`.
- `pmap_data`: the batch is divided over the devices of a `pmap`, the state replicated; the step
  must have been built with `axis_name=AXIS`.
- `pmap_members`: a sweep's members are divided over the devices, `pmap(vmap(step))`, without
  communication between steps; every device has the full batch.
- `mesh_data`: as `pmap_data`, but under `jit` with shardings; the step has no axis name.
  `sharded_state.shard_state` divides the state as well.

With several processes each process passes its rows of a batch (`Layout.block`, for
`data.shard_source`), or those of its members (`Layout.members`), and receives the full states,
metrics and outputs.

Training and evaluation use devices only through a `Layout`.
"""

import functools
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
    """Functions that place arrays on devices and map a step over them.

    `place(state)` and `fetch(state)` move a plain (perhaps stacked) state to the devices and
    back. `put(batch)` moves a host batch, `share(arrays)` constants, and both may then be merged
    into the batch of a step. `compile_step(step)` maps and compiles `step(state, batch)`, which
    consumes its state; `compile_map(f)` maps `f(state, batch) -> tree`, which does not. `read`
    moves metrics to the host; `join` per-example outputs [members, batch, ...] of all devices.
    `block`: the index and number of the block of a batch's rows that this process puts; `members`:
    the members whose batches it puts, if they are stacked.
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
    block: tuple[int, int] = (0, 1)
    members: slice = slice(None)


def one_device() -> Layout:
    """Return the layout of `jit` on the default device."""
    # explicit: a state from a checkpoint has a mesh and would need another program
    (device,) = jnp.zeros(()).devices()
    return Layout(
        devices=1,
        axis_name=None,
        # a copy: a step donates its state
        place=lambda tree: jax.device_put(tree, device, may_alias=False),
        fetch=_identity,
        put=_identity,  # the call itself moves host arrays, in less time than `device_put`
        share=jax.device_put,
        compile_step=lambda step: jax.jit(step, donate_argnums=0),
        compile_map=jax.jit,
        read=jax.device_get,
        join=jax.device_get,
    )


def pmap_data(devices: int, *, stacked_batch: bool) -> Layout:
    """Divide each batch over `devices`.

    Args:
      devices: number in all processes; the batch size must be a multiple.
      stacked_batch: host batches have a leading member axis.
    """
    # in each process a pmap has the local devices
    local, everyone = multihost.local_devices(devices), multihost.devices(devices)
    sharding = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))
    replicate = functools.partial(_replicate, devices=len(local), sharding=sharding)
    where: dict[str, Any] = {} if len(local) == devices else {"devices": everyone}

    def put(batch: Mapping[str, Any]) -> PyTree:
        def divide(x: Any) -> Any:
            return _divide(np.asarray(x), len(local), axis=int(stacked_batch))

        return jax.device_put(jax.tree.map(divide, dict(batch)), sharding)

    def join(tree: PyTree) -> PyTree:
        # [devices, members, batch, ...]
        rows = jax.tree.map(lambda x: np.concatenate(list(x), axis=1), jax.device_get(tree))
        return multihost.gather_rows(rows, axis=1)

    return Layout(
        devices=devices,
        axis_name=AXIS,
        place=replicate,
        fetch=lambda tree: jax.tree.map(lambda x: x[0], tree),
        put=put,
        share=replicate,
        compile_step=lambda f: blocking_on_cpu(jax.pmap(f, AXIS, donate_argnums=0, **where)),
        compile_map=lambda f: blocking_on_cpu(jax.pmap(f, AXIS, **where)),
        read=lambda tree: jax.tree.map(lambda x: x[0], jax.device_get(tree)),
        join=join,
        block=(jax.process_index(), multihost.count()),
    )


def pmap_members(devices: int, axes: State, *, members: int, stacked_batch: bool) -> Layout:
    """Divide a sweep's members over `devices`, in all processes.

    Args:
      devices: their number.
      axes: 0 if stacked by member, None if shared, for each leaf of the state.
      members: their number, a multiple of `devices`.
      stacked_batch: host batches have a leading member axis.
    """
    local, rows = multihost.local_devices(devices), multihost.local_rows(members)
    sharding = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))
    replicate = functools.partial(_replicate, devices=len(local), sharding=sharding)
    divide = functools.partial(_divide, devices=len(local), axis=0)
    where: dict[str, Any] = {} if len(local) == devices else {"devices": local}

    def place(state: State) -> State:
        def local_members(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: divide(x[rows]), tree)

        def copies(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: _copies(x, len(local)), tree)

        return jax.device_put(_by_axis(axes, state, local_members, copies), sharding)

    def fetch(state: State) -> State:
        return _by_axis(axes, state, all_members, lambda tree: jax.tree.map(lambda x: x[0], tree))

    def all_members(tree: PyTree) -> PyTree:
        return multihost.gather_rows(jax.tree.map(_merge, tree))

    def put(batch: Mapping[str, Any]) -> PyTree:
        if not stacked_batch:
            return replicate(dict(batch))
        return jax.device_put(jax.tree.map(lambda x: divide(np.asarray(x)), dict(batch)), sharding)

    def read(tree: PyTree) -> PyTree:
        return all_members(jax.device_get(tree))

    return Layout(
        devices=devices,
        axis_name=None,
        place=place,
        fetch=fetch,
        put=put,
        share=replicate,
        compile_step=lambda f: jax.pmap(f, donate_argnums=0, **where),
        compile_map=lambda f: jax.pmap(f, **where),
        read=read,
        join=read,
        members=rows,
    )


def mesh_data(devices: int, *, stacked_batch: bool) -> Layout:
    """Divide each batch over a device mesh under `jit`; the compiler places the collectives."""
    replicated = _sharding(devices, PartitionSpec())
    spec = PartitionSpec(None, AXIS) if stacked_batch else PartitionSpec(AXIS)
    divided = _sharding(devices, spec)
    layout = Layout(
        devices=devices,
        axis_name=None,
        place=lambda tree: jax.device_put(tree, replicated, may_alias=False),
        fetch=_identity,
        put=lambda batch: jax.device_put(dict(batch), divided),
        share=lambda tree: jax.device_put(tree, replicated),
        compile_step=lambda f: blocking_on_cpu(
            jax.jit(f, donate_argnums=0, out_shardings=(replicated, replicated))
        ),
        compile_map=lambda f: blocking_on_cpu(jax.jit(f, out_shardings=replicated)),
        read=jax.device_get,
        join=jax.device_get,
    )
    if multihost.count() == 1:
        return layout

    def put(batch: Mapping[str, Any]) -> PyTree:  # no process can address all devices
        rows = {name: np.asarray(x) for name, x in batch.items()}
        return {n: jax.make_array_from_process_local_data(divided, x) for n, x in rows.items()}

    replicate = functools.partial(multihost.replicate_global, sharding=replicated)
    return layout._replace(
        place=replicate,
        fetch=multihost.local_copy,
        put=put,
        share=replicate,
        block=(jax.process_index(), multihost.count()),
    )


def _identity(tree: PyTree) -> PyTree:
    return tree


def _sharding(devices: int, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.array(multihost.devices(devices)), (AXIS,)), spec)


def _replicate(tree: PyTree, devices: int, sharding: NamedSharding) -> PyTree:
    """Copy to every device, as pmap's leading axis."""
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
    """Apply one function to the trees stacked by member and another to the shared ones."""

    def apply(axis: int | None, tree: PyTree) -> PyTree:
        return stacked(tree) if axis == 0 else shared(tree)

    return jax.tree.map(apply, axes, state, is_leaf=lambda x: x is None)


class _BlockingCall:
    """A compiled function whose calls wait for their results."""

    def __init__(self, f: Any) -> None:
        """Wrap a compiled function."""
        self._f, self.lower = f, f.lower

    def __call__(self, *args: Any) -> Any:
        """Call it and wait."""
        return jax.block_until_ready(self._f(*args))


def blocking_on_cpu(f: Mapped) -> Mapped:
    """On simulated CPU devices, wait for each call before the next.

    Queued programs with collectives block one another on the CPU's few threads until XLA aborts
    the process (observed with 4 devices on 2 cores). Accelerators do not need to wait.
    """
    if jax.default_backend() != "cpu":
        return f
    return _BlockingCall(f)
