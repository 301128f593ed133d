"""Checks of a config before training."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from kdjax.errors import UserError, is_number
from kdjax.experiment.build.plan import TaskData, Variant
from kdjax.experiment.config import resolve
from kdjax.experiment.config.schema import Config, Term

_VARIANT_KEYS = {"title", "seed", "num_steps", "accumulate", "precision", "roles", "halving"} | {
    key for key in Config.model_fields if key.startswith("sweep")
}


def check_devices(config: Config) -> None:
    """Refuse more devices than exist, and batches that do not divide over them."""
    if config.devices > jax.device_count():
        raise UserError(f"devices is {config.devices}; this machine has {jax.device_count()}")
    if config.shard_parameters and config.parallel != "mesh":
        raise UserError(
            f"shard_parameters is set, but parallel is {config.parallel!r}; set parallel=mesh"
        )
    devices = config.devices or jax.device_count()
    if devices % jax.process_count():
        raise UserError(
            f"devices is {devices}; it must be a multiple of the {jax.process_count()} processes, "
            "or 0 for all devices"
        )
    sizes = {"batch_size": config.batch_size, "eval_batch_size": config.eval_batch_size}
    for key, size in sizes.items():
        if size % devices:
            raise UserError(
                f"{key} is {size}, not a multiple of the {devices} devices; "
                f"use {size // devices * devices or devices}, or set devices"
            )


def check_best(config: Config) -> None:
    """Refuse `keep_best` without validations during the run."""
    if config.keep_best and not config.eval_every:
        raise UserError("keep_best needs validations during the run; set eval_every")


def check_parts(config: Config, devices: int) -> None:
    """Refuse batches that do not divide into `accumulate` parts on each device."""
    parts = config.accumulate
    if config.batch_size % (devices * parts):
        raise UserError(
            f"batch_size is {config.batch_size}, not a multiple of accumulate x devices = "
            f"{parts} x {devices}; change one of them"
        )
    for role, table in config.roles.items():
        if parts > 1 and table.pause.name:
            raise UserError(
                f"roles.{role}.pause depends on the full batch, but accumulate = {parts} divides "
                "it; set accumulate = 1"
            )
        waits = table.terms and not table.between and all(map(_has_steps, table.terms.values()))
        if parts > 1 and waits:
            raise UserError(
                f"roles.{role} is paused while all its terms are off (from_step, until_step), "
                f"which accumulate = {parts} does not support; set accumulate = 1"
            )


def _has_steps(term: Term) -> bool:
    return bool(term.from_step) or term.until_step is not None


def check_halving(config: Config) -> None:
    """Refuse steps of successive halving that do not rise."""
    steps = (0, *config.halving.steps, config.num_steps)
    if any(after <= before for before, after in itertools.pairwise(steps)):
        raise UserError(
            f"halving.steps is {config.halving.steps}; the steps must rise from 1 or more to less "
            f"than num_steps = {config.num_steps}"
        )


def check_unread(variants: Sequence[Config]) -> None:
    """Refuse keys of a sweep that no variant reads."""
    default = Config()
    is_random = any(config.sweep_mode == "random" for config in variants)
    is_halved = any(config.halving.steps for config in variants)
    for key, is_read, needed in (
        ("sweep_members", is_random, "sweep_mode = random"),
        ("sweep_seed", is_random, "sweep_mode = random"),
        ("halving", is_halved, "halving.steps"),
    ):
        if not is_read and any(getattr(c, key) != getattr(default, key) for c in variants):
            raise UserError(f"{key} is set, but has no effect without {needed}")


def check_selection(variant: Variant, data: TaskData) -> None:
    """Refuse a metric of two roles where a choice among members needs it and the roles are not two.

    Members of equal values and several seeds need no choice.
    """
    config, members, players = variant.config, variant.members, variant.players
    metric, pairs = config.select.metric, data.task.pair_metrics
    swept = len({repr({**member, "seed": 0}) for member in members}) > 1
    if swept and metric in pairs and len(players) != 2:
        known = [name for name in data.task.metrics(data.source.spec) if name not in pairs]
        raise UserError(
            f"select.metric is {metric!r}, which compares two roles, of {len(players)}; there are "
            f"{', '.join(known)}"
        )


def check_shared(base: Config, variant: Config) -> None:
    """Refuse a variant that sets a key which is read from the base for all variants."""
    shared = set(Config.model_fields) - _VARIANT_KEYS - {"variants"}
    old, new = (config.model_dump(include=shared) for config in (base, variant))
    if changed := resolve.differences(old, new):
        raise UserError(
            f"{changed[0]}, but all variants share this key: set it outside variants. A variant "
            f"may set {', '.join(sorted(_VARIANT_KEYS))}"
        )


def check_scalars(where: str, scalars: Mapping[str, Any]) -> None:
    """Refuse scalars of a term that are not numbers."""
    for key, value in scalars.items():
        if not is_number(value):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number")
