"""The cost of the networks of a run: work of a forward pass, size of the weights, latency."""

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import models
from kdjax.data import example_batch
from kdjax.experiment.build.models import make_network
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.report import cost_table
from kdjax.report.results import PlayerSummary, VariantResult

_SECONDS, _MOST_CALLS = 0.2, 50  # of the timing at one batch size, after a first call


class NetworkCost(NamedTuple):
    """The cost of a network without the adapters of its terms.

    `flops` of a forward pass of one example, `size` of the weights in bytes, `latency` in ms.
    """

    parameters: int
    flops: float | None
    size: int
    latency: dict[str, float]


def add_costs(experiment: Experiment, results: Sequence[VariantResult]) -> list[VariantResult]:
    """Return the results with the costs of every network, each computed once.

    Detectors have none: their work depends on the picture.
    """
    if not experiment.task.rows_are_examples:
        return list(results)
    costs: dict[str, NetworkCost] = {}
    variants = {variant.name: variant for variant in experiment.variants}

    def with_cost(variant: Variant, role: str, player: PlayerSummary) -> PlayerSummary:
        table = variant.config.roles[role]
        key = json.dumps([table.model.model_dump(), variant.config.precision, table.input])
        if key not in costs:
            costs[key] = _cost(experiment, variant, role)
        return dataclasses.replace(player, **costs[key]._asdict())

    def with_costs(result: VariantResult) -> VariantResult:
        variant = variants[result.name]
        roles = {role: with_cost(variant, role, player) for role, player in result.roles.items()}
        return dataclasses.replace(result, roles=roles)

    return [with_costs(result) for result in results]


def _cost(experiment: Experiment, variant: Variant, role: str) -> NetworkCost:
    model = make_network(role, variant.config, experiment.data, None)

    def batch(size: int) -> Any:
        raw = example_batch(experiment.source, size)
        shapes = jax.eval_shape(experiment.prepare_eval, raw)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    @jax.jit
    def apply(variables: Any, batch: Any) -> Any:
        return model.apply(variables, batch, train=False)[0].logits

    shapes = jax.eval_shape(model.init, jax.random.key(0), batch(1))
    # of the program before optimisation, which needs no compilation and is equal on all devices
    analysis = apply.lower(shapes, batch(1)).cost_analysis() or {}
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    latency = {}
    for count in cost_table.LATENCY_BATCHES:
        milliseconds = measure_latency(apply, variables, batch(count))
        if milliseconds is not None:
            latency[str(count)] = milliseconds
    count = models.parameter_count(shapes)
    return NetworkCost(count, analysis.get("flops"), size, latency)


def measure_latency(apply: Any, variables: Any, batch: Any) -> float | None:
    """Return the median time of a compiled call, in milliseconds; None if it does not fit."""
    times: list[float] = []
    try:
        jax.block_until_ready(apply(variables, batch))
        while not times or (sum(times) < _SECONDS and len(times) < _MOST_CALLS):
            start = time.perf_counter()
            jax.block_until_ready(apply(variables, batch))
            times.append(time.perf_counter() - start)
    except jax.errors.JaxRuntimeError:
        return None
    return 1000 * statistics.median(times)
