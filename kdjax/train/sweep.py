"""Sweeps: many runs as one program, by stacking states and mapping the step over them.

`vmap_members` computes all members at once, `scan_members` one after another.

A swept value is a traced scalar in `hparams` (or the seed), so the program is compiled once for all
members. Values that are not swept are not stacked: a frozen teacher runs once for all members.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError
from kdjax.train.step import Optimizer, init_state
from kdjax.types import Array, Batch, Method, PyTree, State, Variables

Member = Mapping[str, Any]  # dotted path -> value


def members(table: Mapping[str, Sequence[Any]], mode: str = "grid") -> list[dict[str, Any]]:
    """List a sweep's members.

    Args:
      table: dotted path -> values, in the order of the table; the last path varies fastest.
      mode: "grid" (every combination) or "zip" (the i-th values together).

    Raises:
      UserError: an empty list of values, an unknown mode, zipped lists of unequal length, or
        two equal members.
    """
    for path, values in table.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UserError(f"sweep.{path} is {values!r}; it must be a list of one value or more")
    if mode == "grid":
        rows = itertools.product(*table.values())
    elif mode == "zip":
        lengths = {path: len(values) for path, values in table.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"sweep_mode is zip, but the lists differ in length: {lengths}")
        rows = zip(*table.values(), strict=True) if table else [()]
    else:
        raise UserError(f"sweep_mode is {mode!r}; it must be grid or zip")
    listed = [dict(zip(table, row, strict=True)) for row in rows]
    seen: set[str] = set()
    for member in listed:
        if repr(member) in seen:
            raise UserError(f"sweep names {member} twice; each member must differ from the others")
        seen.add(repr(member))
    return listed


def place(hparams: Mapping[str, Any], path: str, value: float) -> dict[str, Any]:
    """Return `hparams` with the scalar at a dotted config path replaced.

    Paths: `roles.student.terms.balanced_kl.temperature`, `roles.*.optimizer.learning_rate`,
    `roles.student.terms.*.temperature`. A star is every role, or every term, with the rest of the
    path. Of several swept paths, the one with fewer stars sets a scalar: see `owner`.

    Raises:
      UserError: the path does not lead to a traced scalar (it would change shapes or the graph).
    """
    swept = [known for known in scalar_paths(hparams) if matches(path, known)]
    if not swept:
        raise cannot_sweep(path, scalar_paths(hparams))
    placed = dict(hparams)
    for known in swept:
        placed = _set(placed, known.split(".")[1:], value)
    return placed


def matches(pattern: str, path: str) -> bool:
    """Return whether a swept path, whose parts may be stars, names the path of a scalar.

    >>> matches("roles.*.terms.*.weight", "roles.student.terms.ce.weight")
    True
    """
    parts, names = pattern.split("."), path.split(".")
    pairs = zip(parts, names, strict=False)
    return len(parts) == len(names) and all(part in ("*", name) for part, name in pairs)


def applicable(
    table: Mapping[str, Sequence[Any]], hparams: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    """Return a sweep's table without the paths with a star that set nothing in `hparams`.

    Raises:
      UserError: two paths with equally many stars that name one scalar.
    """
    setting = {owner(scalar, list(table)) for scalar in scalar_paths(hparams)}
    return {p: values for p, values in table.items() if "*" not in p or p in setting}


def owner(scalar: str, paths: Sequence[str]) -> str | None:
    """Return the path that sets a scalar: of those that name it, that with the fewest stars.

    Raises:
      UserError: two such paths.

    >>> owner("roles.a.optimizer.learning_rate", ["roles.*.optimizer.learning_rate", "seed"])
    'roles.*.optimizer.learning_rate'
    """
    naming = sorted((path.count("*"), path) for path in paths if matches(path, scalar))
    if len(naming) > 1 and naming[0][0] == naming[1][0]:
        raise UserError(
            f"sweep.{naming[0][1]} and sweep.{naming[1][1]} both set {scalar}; remove one"
        )
    return naming[0][1] if naming else None


def cannot_sweep(path: str, known: Sequence[str]) -> UserError:
    """Return the refusal of a path that names no scalar; `known`: those that there are."""
    return UserError(
        f"sweep.{path} is not a number that one program can sweep (use `variants` for what changes "
        f"shapes or the graph); it can sweep {', '.join(['seed', *known])}"
    )


def scalar_paths(hparams: Mapping[str, Any]) -> list[str]:
    """Return all dotted paths that a sweep may name."""
    flat, _ = jax.tree_util.tree_flatten_with_path(dict(hparams))
    return ["roles." + ".".join(str(entry.key) for entry in path) for path, _ in flat]


def _set(tree: Mapping[str, Any], parts: Sequence[str], value: float) -> dict[str, Any]:
    inner = value if len(parts) == 1 else _set(tree[parts[0]], parts[1:], value)
    return {**tree, parts[0]: inner}


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of arrays on a new first axis."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def init_members(
    method: Method,
    tx: Mapping[str, Optimizer],
    seeds: Sequence[int],
    batch: Batch,
    hparams: Sequence[Mapping[str, Any]],
    initial: Mapping[str, tuple[Variables, bool]],
) -> tuple[State, State]:
    """Return the stacked state of all members, and the axes over which it is stacked.

    Args:
      method: the players.
      tx: optimizers by role.
      seeds: one for each member.
      batch: one prepared batch, not stacked; only its shapes matter.
      hparams: one tree for each member.
      initial: role -> (loaded variables, whether they are stacked by member).

    Returns:
      The state, and a State of `vmap` axes: 0 if stacked, None if shared.
    """
    one_seed = len(set(seeds)) == 1  # then all members have the same order and augmentation
    key_axis = None if one_seed else 0
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    table = stack([jax.tree.map(np.float32, dict(h)) for h in hparams])

    def drawn(tree: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {role: values for role, values in tree.items() if role not in initial}

    def init(key: Array, member_hparams: Mapping[str, Any]) -> State:
        state = init_state(method, tx, key, batch, member_hparams)
        # unused variables are dropped inside the program, so they are not computed
        return state._replace(params=drawn(state.params), stats=drawn(state.stats))

    mapped = jax.vmap(init, in_axes=(key_axis, 0), out_axes=_axes(key_axis, 0, 0, 0))
    state = jax.jit(mapped, compiler_options=_fast_compile())(keys[0] if one_seed else keys, table)
    params, stats = dict(state.params), dict(state.stats)
    axes: dict[str, int | None] = dict.fromkeys(hparams[0], 0)
    for role, (variables, stacked) in initial.items():
        if not stacked and role in method.trains:
            variables = stack([variables] * len(seeds))
        elif not stacked:
            axes[role] = None
        params[role], stats[role] = variables
    by_role = {role: axes[role] for role in params}
    return (
        state._replace(params=params, stats=stats),
        _axes(key_axis, by_role, by_role, dict.fromkeys(method.trains, 0)),
    )


def _fast_compile() -> dict[str, int] | None:
    """Return options of a program that runs once: compiled 7 times faster on a CPU, same bits."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def _axes(key: int | None, params: Any, stats: Any, opt: Any) -> State:
    """Return a State of axes instead of arrays: the step is shared, the hparams are stacked."""
    return State._make((None, key, params, stats, opt, 0))


def vmap_members(
    f: Callable, axes: State, *, stacked_batch: bool, state_out: bool
) -> Callable[[State, Mapping[str, Any]], Any]:
    """Map `f(state, batch)` over members.

    Args:
      f: a step (`state_out`), returning (state, metrics), or a function returning one tree.
      axes: those of the state, from `init_members`.
      stacked_batch: batches have a member axis; `batch["arrays"]` never has one.
      state_out: `f` is a step.
    """

    def mapped(state: State, batch: Mapping[str, Any]) -> Any:
        mapped_entries = {name: value for name, value in batch.items() if name != "arrays"}
        shared = {name: value for name, value in batch.items() if name == "arrays"}
        return jax.vmap(
            lambda s, b: f(s, {**b, **shared}),
            in_axes=(axes, 0 if stacked_batch else None),
            out_axes=(axes, 0) if state_out else 0,
        )(state, mapped_entries)

    return mapped


def scan_members(
    f: Callable, axes: State, *, stacked_batch: bool, state_out: bool
) -> Callable[[State, Mapping[str, Any]], Any]:
    """Apply `f(state, batch)` to one member after another, in a loop of the compiled program.

    Memory and compilation time are those of one member. What members share, such as a frozen
    teacher's forward pass, is computed for each of them.

    Args:
      f: as in `vmap_members`.
      axes: as in `vmap_members`.
      stacked_batch: as in `vmap_members`.
      state_out: as in `vmap_members`.
    """

    def mapped(state: State, batch: Mapping[str, Any]) -> Any:
        constant = {n: v for n, v in batch.items() if n == "arrays" or not stacked_batch}
        stacked = {n: v for n, v in batch.items() if n not in constant}
        shared, own = _split_state(state, axes)

        def one(_: Any, member: tuple[list[Array], Batch]) -> tuple[Any, Any]:
            own, batch = member
            result = f(_merge_state(state, axes, shared, own), {**batch, **constant})
            if not state_out:
                return None, result
            after, own = _split_state(result[0], axes)  # `after` is the same for all members
            return after, (own, result[1])

        after, results = jax.lax.scan(one, shared if state_out else None, (own, stacked))
        if not state_out:
            return results
        return _merge_state(state, axes, after, results[0]), results[1]

    return mapped


def _split_state(state: State, axes: State) -> tuple[list[Array], list[Array]]:
    """Return the leaves that members share, and those that have a member axis."""
    pairs = list(zip(_leaf_axes(state, axes), jax.tree.leaves(state), strict=True))
    shared = [leaf for axis, leaf in pairs if axis is None]
    return shared, [leaf for axis, leaf in pairs if axis is not None]


def _merge_state(state: State, axes: State, shared: list[Array], own: list[Array]) -> State:
    """Return a state of `state`'s structure from the two lists of `_split_state`."""
    lists = {None: iter(shared), 0: iter(own)}
    leaves = [next(lists[axis]) for axis in _leaf_axes(state, axes)]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def _leaf_axes(state: State, axes: State) -> list[int | None]:
    """Return the axis of each leaf of `state`; `axes` is a prefix of its tree."""

    def is_none(entry: Any) -> bool:
        return entry is None

    return jax.tree.leaves(jax.tree.broadcast(axes, state, is_leaf=is_none), is_leaf=is_none)
