"""The compiled functions of a group of members."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import data
from kdjax.data import example_batch
from kdjax.experiment.build.plan import Experiment, InitialWeights
from kdjax.experiment.config.schema import Config
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.train import parallel
from kdjax.train.parallel import Layout
from kdjax.train.predict import make_predict
from kdjax.train.sharded_state import shard_state
from kdjax.train.step import make_grad_norms, make_step, multi_step
from kdjax.train.sweep import init_members, scan_members, vmap_members
from kdjax.types import Batch, Method, State


class Program(NamedTuple):
    """Compiled functions over stacked members, and their placement on devices."""

    method: Method
    seeds: tuple[int, ...]  # of order and augmentation, one per member
    layout: Layout  # placement of training batches
    eval_layout: Layout
    axes: State
    step: Callable[[State, Any], tuple[State, Any]]
    grad_norms: Callable[[State, Any], Any]
    predict: Callable[[State, Any], Any]
    multi_step: Callable[[State, Any], tuple[State, Any]] | None  # of `steps_per_dispatch` steps
    steps_per_dispatch: int


def make_program(
    experiment: Experiment, group: MemberGroup, weights: Mapping[str, InitialWeights]
) -> tuple[Program, State]:
    """Build the program of a group of members, and their state before the first step."""
    config, variant, members = experiment.config, group.variant, group.members
    seeds = tuple(int(variant.members[m]["seed"]) for m in members)
    common = config.data.seed  # if set, members share batches and a frozen teacher's outputs
    orders = seeds if common is None else (int(common),) * len(seeds)
    devices = config.devices or jax.device_count()
    plain = variant.method(None)
    batch = jax.device_put(experiment.prepare_eval(example_batch(experiment.source)))
    hparams = [variant.hparams[m] for m in members]
    state, axes = init_members(plain, variant.optimizers, seeds, batch, hparams, weights)
    layout, eval_layout = _layouts(config, devices, axes, orders)
    method = variant.method(layout.axis_name)
    stacked = len(set(orders)) > 1

    def prepare_eval(batch: Batch) -> Batch:
        return experiment.task.hide_answers(experiment.prepare_eval(batch))

    def over_members(f: Callable, *, batches: bool, state_out: bool) -> Callable:
        mapping = scan_members if config.members_in_turn else vmap_members
        return mapping(f, axes, stacked_batch=batches, state_out=state_out)

    prepare = {"prepare": experiment.prepare_train, "data_seed": common}
    parts = variant.config.accumulate
    step = make_step(method, variant.optimizers, layout.axis_name, accumulate=parts, **prepare)
    norms = make_grad_norms(method, layout.axis_name, **prepare)
    models = {role: player.model for role, player in variant.players.items()}
    predict = make_predict(models, prepare_eval, experiment.task.collect)
    stepped = over_members(step, batches=stacked, state_out=True)
    steps_per_dispatch = config.steps_per_dispatch or (1 if jax.default_backend() == "cpu" else 8)
    program = Program(
        method=method,
        seeds=orders,
        layout=layout,
        eval_layout=eval_layout,
        axes=axes,
        step=layout.compile_step(stepped),
        grad_norms=layout.compile_map(over_members(norms, batches=stacked, state_out=False)),
        multi_step=layout.compile_step(multi_step(stepped)) if steps_per_dispatch > 1 else None,
        steps_per_dispatch=steps_per_dispatch,
        predict=eval_layout.compile_map(over_members(predict, batches=False, state_out=False)),
    )
    return program, state


def _layouts(
    config: Config, devices: int, axes: State, seeds: Sequence[int]
) -> tuple[Layout, Layout]:
    """Return the layouts of training and of evaluation; both place a state in the same way."""
    stacked = len(set(seeds)) > 1
    if devices == 1:
        return parallel.one_device(), parallel.one_device()
    if config.shard_parameters:
        make = functools.partial(parallel.mesh_data, devices)
        training, evaluation = make(stacked_batch=stacked), make(stacked_batch=False)
        return shard_state(training), shard_state(evaluation)
    if config.members_over_devices and len(seeds) > 1 and len(seeds) % devices == 0:
        make = functools.partial(parallel.pmap_members, devices, axes, members=len(seeds))
        return make(stacked_batch=stacked), make(stacked_batch=False)
    make = parallel.mesh_data if config.parallel == "mesh" else parallel.pmap_data
    return make(devices, stacked_batch=stacked), make(devices, stacked_batch=False)


def device_batches(
    experiment: Experiment, program: Program, start: int
) -> Iterator[dict[str, Any]]:
    """Yield device batches from batch number `start` on: one for all members, or one per seed.

    Each process reads only its rows of a batch, or the batches of its members.
    """
    layout = program.layout
    source = data.shard_source(experiment.source, *layout.block)
    seeds, stacked = program.seeds[layout.members], len(set(program.seeds)) > 1
    streams = {seed: source.train(start, seed) for seed in sorted(set(seeds))}
    arrays = source.arrays
    constants = {} if arrays is None else {"arrays": layout.share(dict(arrays))}
    while True:
        by_seed = {seed: next(stream) for seed, stream in streams.items()}
        if stacked:
            rows = {name: [by_seed[seed][name] for seed in seeds] for name in by_seed[seeds[0]]}
            batch = {name: _stacked(row) for name, row in rows.items()}
        else:
            (batch,) = by_seed.values()
        yield {**layout.put(batch), **constants}


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the arrays of several members; texts are padded to the longest."""
    shape = np.max([row.shape for row in rows], axis=0)
    gaps = (np.stack([np.zeros_like(shape), shape - row.shape], axis=1) for row in rows)
    return np.stack([np.pad(row, gap) for row, gap in zip(rows, gaps, strict=True)])
