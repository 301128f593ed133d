"""The pure training step, written for one device; `parallel.py` maps it over many.

state = init_state(method, tx, key, batch, hparams)
step = make_step(method, tx)
state, metrics = jax.jit(step, donate_argnums=0)(state, batch)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.train.accumulate import over_parts
from kdjax.types import Array, Aux, Batch, Method, PyTree, Scalars, State

# scalars (learning_rate, weight_decay) -> transformation; they may be traced
Optimizer = Callable[[Scalars], optax.GradientTransformation]
# prepare(raw batch, key) -> batch for the models
Prepare = Callable[[Batch, Array], Batch]
StepFunction = Callable[[State, Batch], tuple[State, Mapping[str, Array]]]


def init_state(
    method: Method,
    tx: Mapping[str, Optimizer],
    key: Array,
    batch: Batch,
    hparams: Mapping[str, Any],
) -> State:
    """Return the state before the first step.

    Args:
      method: the players.
      tx: an optimizer for every role that trains.
      key: a typed PRNG key; kept in the state, constant.
      batch: one prepared batch (float images); only its shapes matter.
      hparams: role -> {"terms": {term: scalars}, "optimizer": scalars}.
    """
    variables = method.init(key, batch)
    params = {role: v.params for role, v in variables.items()}
    stats = {role: v.stats for role, v in variables.items()}
    hparams = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(hparams))
    opt = init_opt(method, tx, params, hparams)
    return State(jnp.int32(0), key, params, stats, opt, hparams)


def init_opt(method: Method, tx: Mapping[str, Optimizer], params, hparams) -> dict[str, PyTree]:
    """Return new optimizer states of the trained roles."""
    return {r: tx[r](hparams[r]["optimizer"]).init(params[r]) for r in method.trains}


def make_step(
    method: Method,
    tx: Mapping[str, Optimizer],
    axis_name: str | None = None,
    *,
    prepare: Prepare | None = None,
    data_seed: int | None = None,
    accumulate: int = 1,
) -> StepFunction:
    """Build `step(state, batch) -> (state, metrics)`.

    Args:
      method: the players; only the roles of `trains` are differentiated, so a frozen role
        has no backward pass.
      tx: an optimizer for every role that trains.
      axis_name: the axis over which the batch is divided, if the step will be mapped over one.
      prepare: converts a raw batch into one for the models, inside the compiled step.
      data_seed: augment by this seed instead of the state's key, so that members of a sweep
        with different seeds have the same batch (and a frozen teacher runs once).
      accumulate: the number of parts of the batch that are processed in turn, for one step;
        operations that couple examples (batch norm, some terms) then use one part at a time.

    Returns:
      A pure function. Its metrics are global means, with `<role>/grad_norm` added.

    Raises:
      ValueError: (by the step) parts with a role that may pause.
    """

    def step(state: State, batch: Batch):
        batch, model_key = _ready(state, batch, prepare, data_seed)
        trained = {role: state.params[role] for role in method.trains}

        def gradients(stats, batch, key) -> tuple[PyTree, Aux]:
            def objective(trained) -> tuple[Array, Aux]:
                params = {**state.params, **trained}
                return method.loss(params, stats, batch, state.hparams, key, state.step)

            return jax.grad(objective, has_aux=True)(trained)

        if accumulate == 1:
            grads, aux = gradients(state.stats, batch, model_key)
        else:
            grads, aux = _in_parts(gradients, accumulate, state, batch, model_key)
        grads, metrics = _total((grads, dict(aux.metrics)), axis_name)
        new = _update(method, tx, state, grads, aux)
        for role in method.trains:
            metrics[f"{role}/grad_norm"] = optax.global_norm(grads[role])
        return new, metrics

    return step


def multi_step(step: StepFunction) -> Callable[[State, tuple[Batch, ...]], tuple[State, Any]]:
    """Build `steps(state, batches) -> (state, metrics)`: one step for each batch, in one program.

    It is a scan. On an accelerator it saves the host's time of each step; on a CPU before jax 0.12
    convolutions in a loop are many times slower. Metrics get a last axis of steps: an axis of
    members stays first. Constants ("arrays") are not stacked.
    """

    def steps(state: State, batches: tuple[Batch, ...]):
        constants = {name: batches[0][name] for name in ("arrays",) if name in batches[0]}
        moving = [{n: x for n, x in b.items() if n not in constants} for b in batches]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *moving)
        state, metrics = jax.lax.scan(
            lambda s, batch: step(s, {**batch, **constants}), state, stacked
        )
        return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), metrics)

    return steps


def _in_parts(gradients, parts: int, state: State, batch: Batch, key) -> tuple[PyTree, Aux]:
    def part_gradients(stats, part, key):
        grads, aux = gradients(stats, part, key)
        if aux.active:
            raise ValueError(f"accumulate: {', '.join(aux.active)} may pause, by the whole batch")
        return grads, {**stats, **aux.stats}, dict(aux.metrics)

    grads, stats, metrics = over_parts(part_gradients, parts, state.stats, batch, key)
    return grads, Aux(stats, metrics, {})


def make_grad_norms(
    method: Method,
    axis_name: str | None = None,
    *,
    prepare: Prepare | None = None,
    data_seed: int | None = None,
) -> Callable[[State, Batch], Mapping[str, Array]]:
    """Build `norms(state, batch) -> {"<role>/<term>/grad_norm": scalar}`.

    It needs one forward pass and a backward pass for each term, too slow for every step.
    """

    def norms(state: State, batch: Batch):
        batch, key = _ready(state, batch, prepare, data_seed)
        all_norms = {}
        for role in method.trains:

            def weighted(role_params, role=role):
                params = {**state.params, role: role_params}
                _, aux = method.loss(params, state.stats, batch, state.hparams, key, state.step)
                prefix, suffix = f"{role}/", "/weighted"
                return {
                    name.removesuffix(suffix): value
                    for name, value in aux.metrics.items()
                    if name.startswith(prefix) and name.endswith(suffix)
                }

            values, pull = jax.vjp(weighted, state.params[role])
            for name in values:
                one_hot = {n: jnp.ones_like(v) * (n == name) for n, v in values.items()}
                grads = _total(pull(one_hot)[0], axis_name)
                all_norms[f"{name}/grad_norm"] = optax.global_norm(grads)
        return all_norms

    return norms


def _ready(
    state: State,
    batch: Batch,
    prepare: Prepare | None,
    data_seed: int | None,
) -> tuple[Batch, Array]:
    """Return the prepared batch and the key for the models."""
    data_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    if data_seed is not None:
        common = jax.random.fold_in(jax.random.key(data_seed), state.step)
        data_key = jax.random.split(common)[0]
    if prepare is not None:
        batch = prepare(batch, data_key)
    return batch, model_key


def _total(shares, axis_name: str | None):
    """Sum the devices' shares of a global mean."""
    return shares if axis_name is None else jax.lax.psum(shares, axis_name)


def _update(method: Method, tx: Mapping[str, Optimizer], state: State, grads, aux: Aux) -> State:
    params, stats, opt = dict(state.params), dict(state.stats), dict(state.opt)
    for role in method.trains:
        transform = tx[role]({**state.hparams[role]["optimizer"], "step": state.step})
        updates, new_opt = transform.update(grads[role], opt[role], params[role])
        new = (optax.apply_updates(params[role], updates), aux.stats[role], new_opt)
        if role in aux.active:  # a select, so that a paused role stays bit-identical
            old = (params[role], stats[role], opt[role])
            new = jax.tree.map(lambda n, o, on=aux.active[role]: jnp.where(on, n, o), new, old)
        params[role], stats[role], opt[role] = new
    return State(state.step + 1, state.key, params, stats, opt, state.hparams)
