"""From a config to an experiment: names become functions.

`build(config)` checks everything that can be checked without training: keys, types, names,
numbers, shapes of features, and files.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.data import SECOND, example_batch, has_tokenizer
from kdjax.distill import Player, co_train
from kdjax.errors import UserError, prefix_errors
from kdjax.evaluation.selection import Selection, make_selection
from kdjax.experiment.build import critics as experiment_critics
from kdjax.experiment.build import data as experiment_data
from kdjax.experiment.build import on_policy
from kdjax.experiment.build.check_shapes import check_shapes
from kdjax.experiment.build.folders import resolve_folders, tokenizer_folder
from kdjax.experiment.build.hparams import list_members, make_hparams, place_member
from kdjax.experiment.build.initial_weights import find_initial_weights
from kdjax.experiment.build.models import make_network
from kdjax.experiment.build.plan import Experiment, TaskData, Variant
from kdjax.experiment.build.players import extend_network, make_player, player_optimizer
from kdjax.experiment.build.roles import Roles, check_adapters, resolve_roles
from kdjax.experiment.build.schedules import warn_of_late_terms
from kdjax.experiment.build.validate import (
    check_best,
    check_devices,
    check_halving,
    check_parts,
    check_selection,
    check_shared,
    check_unread,
)
from kdjax.experiment.config import resolve
from kdjax.experiment.config.schema import Config, Select
from kdjax.report import files
from kdjax.train import sweep
from kdjax.types import Batch, Method, Variables


def _to_plain(config: Any) -> dict[str, Any]:
    if isinstance(config, Config):
        return resolve.to_dict(config)
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def build(config: Any) -> Experiment:
    """Build an experiment from a config.

    Args:
      config: a ConfigDict, a dict or a Config; keys that are not set have `schema`'s defaults.

    Raises:
      UserError: one line with the key and what would be right.
    """
    plain = _to_plain(config)
    base = config if isinstance(config, Config) else resolve.from_dict(plain)
    check_devices(base)
    check_best(base)
    tables = resolve.variants(plain)
    data = experiment_data.load(base, tokenizer_folder(tables.values()))
    labels = functools.cache(lambda: experiment_critics.training_labels(data.source))
    roles: dict[str, Roles] = {}
    for name, table in tables.items():
        completed = resolve.from_dict(table, _where(name)) if base.variants else base
        with prefix_errors(f"{_where(name)}: "):
            check_shared(base, completed)
            roles[name] = resolve_roles(resolve_folders(completed))
    check_adapters(roles)
    check_unread([each.config for each in roles.values()])
    two = any(r.reads_second_view(role) for r in roles.values() for role in r.players)
    prepare_train, prepare_eval = experiment_data.prepare(base, data.source, second_view=two)
    batch = jax.eval_shape(prepare_eval, example_batch(data.source))
    variants: list[Variant] = []
    for name, roles_of_variant in roles.items():
        earlier = {variant.name: variant.shapes for variant in variants}
        with prefix_errors(f"{_where(name)}: "):
            check_halving(roles_of_variant.config)
            warn_of_late_terms(roles_of_variant.config)
            variant = _variant(name, roles_of_variant, data, batch, labels, earlier)
            check_selection(variant, data)
            variants.append(variant)
    _check_stars(variants)
    selection = _selection(base.select, [r for v in variants for r in v.players], data)
    return Experiment(base, data, prepare_train, prepare_eval, tuple(variants), selection)


def with_test_data(experiment: Experiment, config: Any, workdir: files.Path) -> Experiment:
    """Return an experiment with the test splits of the `data` of another config.

    Texts are read by the tokenizers that the config names, else by those of the workdir.

    Raises:
      UserError: the errors of the reader; data that the networks of the experiment cannot read.
    """
    tokenizer = tokenizer_folder(resolve.variants(config).values())
    if tokenizer is None and has_tokenizer(str(workdir)):
        tokenizer = str(workdir)
    second = str(workdir / SECOND) if has_tokenizer(str(workdir / SECOND)) else None
    data = experiment_data.load(resolve.from_dict(config), tokenizer, second)
    return experiment._replace(data=experiment_data.with_test_splits(experiment.data, data))


def _check_stars(variants: Sequence[Variant]) -> None:
    """Refuse a swept path with a star that names a number in no variant."""
    known = {scalar for v in variants for scalar in sweep.scalar_paths(v.hparams[0])}
    for variant in variants:
        for path in variant.config.sweep:
            if "*" in path and not any(sweep.matches(path, scalar) for scalar in known):
                with prefix_errors(f"{_where(variant.name)}: "):
                    raise sweep.cannot_sweep(path, sweep.scalar_paths(variant.hparams[0]))


def _selection(select: Select, players: Sequence[str], data: TaskData) -> Selection:
    """Return the rule of selection; only the default role may be missing from the players."""
    if select.role not in players and select.role != Select().role:
        known = ", ".join(dict.fromkeys(players))
        raise UserError(f"select.role is {select.role!r}; there are {known}")
    return make_selection(select.role, select.metric, data.task.metrics(data.source.spec))


def _where(variant: str) -> str:
    return "config" if variant == "default" else f"config.variants.{variant}"


def _variant(
    name: str,
    roles: Roles,
    data: TaskData,
    batch: Batch,
    labels: Callable[[], np.ndarray],
    earlier: Mapping[str, Mapping[str, Variables]],
) -> Variant:
    config = roles.config
    if roles.critics and not data.task.rows_are_examples:
        raise UserError(f"roles.{roles.critics[0]} is a critic, which compares examples only")
    critics = {r: experiment_critics.make_critic(r, config, labels) for r in roles.critics}
    check_parts(config, config.devices or jax.device_count())
    networks = {role: make_network(role, config, data, None) for role in roles.players}
    players = {
        role: make_player(role, roles, data, network, critics) for role, network in networks.items()
    }

    def on_axis(role: str, axis_name: str) -> Player:
        network = make_network(role, config, data, axis_name)
        model = extend_network(role, roles, data, network, axis_name)
        return players[role]._replace(model=model)

    @functools.cache
    def method(axis_name: str | None) -> Method:
        placed = players
        if axis_name is not None:  # only batch norm depends on it
            placed = {role: on_axis(role, axis_name) for role in players}
        try:
            plain = co_train(placed, axis_name=axis_name)
            complete = experiment_critics.add_critics(plain, critics, placed, axis_name)
            return on_policy.add(complete, config, data, networks, axis_name)
        except ValueError as error:
            raise UserError(f"roles.{error}") from error

    hparams = make_hparams(config, players, critics)
    members = list_members(config, hparams)
    shapes = check_shapes(method(None), players, critics, hparams, batch, config)
    origins = find_initial_weights(roles, players, shapes, data, earlier)
    return Variant(
        name=name,
        config=config,
        players=players,
        critics=critics,
        method=method,
        optimizers={role: player_optimizer(role, config) for role in method(None).trains},
        members=tuple(members),
        hparams=tuple(place_member(hparams, member, players, critics) for member in members),
        parameters={role: models.parameter_count(tree) for role, tree in shapes.items()},
        shapes=shapes,
        initial_variables=origins.variables,
        new_heads=tuple(origins.new_heads),
        from_variant=origins.from_variant,
        backbones=origins.backbones,
        class_means={r: (networks[r], at) for r in players if (at := roles.means_layer(r))},
        cached={r: (networks[r], roles.layers_read(r)) for r in players if config.roles[r].cache},
    )
