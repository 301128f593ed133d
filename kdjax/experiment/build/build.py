"""From a config to a run: the only reader of a ConfigDict, and the only place for names.

`build(config)` checks everything that can be checked without training: keys, types, names,
numbers, shapes of features, files. What it returns holds functions, not strings.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax import models
from kdjax.distill import terms
from kdjax.distill.methods import CriticRole, Player, co_train, player_hparams
from kdjax.evaluation.selection import Selection, make_selection
from kdjax.experiment.build import critics as experiment_critics
from kdjax.experiment.build import data as experiment_data
from kdjax.experiment.build import initial_weights, players
from kdjax.experiment.build import models as experiment_models
from kdjax.experiment.build.plan import Experiment, TaskData, Variant
from kdjax.experiment.build.validate import check_devices, check_parts, check_shapes
from kdjax.experiment.config import resolve as configs
from kdjax.experiment.config.schema import Select
from kdjax.train import sweep
from kdjax.types import Batch, Method, UserError, Variables


def complete(config: Any, where: str = "config") -> dict[str, Any]:
    """Check a config (ConfigDict or dict); returns it as nested dicts, every default filled in."""
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return configs.to_dict(configs.from_dict(plain, where))


def build(config: Any) -> Experiment:
    """Build a run from a config.

    Args:
      config: a ConfigDict or a dict; what it does not say is filled in from `schema`.

    Raises:
      UserError: one line that names the key and what would be right.
    """
    whole = complete(config)
    check_devices(whole)
    data = experiment_data.load(whole)
    prepare_train, prepare_eval = experiment_data.prepare(whole, data.source)
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    found: list[Variant] = []
    labels = functools.cache(lambda: experiment_critics.training_labels(data.source))
    completed: dict[str, dict[str, Any]] = {}
    for name, said in configs.variants(plain).items():
        completed[name] = complete(said, _where(name))
        experiment_critics.split(completed[name], _where(name))
    players.check_adapters(completed)
    for name, full in completed.items():
        where = _where(name)
        try:
            earlier = [variant.name for variant in found]
            found.append(_variant(name, full, data, prepare_eval, labels, earlier))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    played = [role for variant in found for role in variant.players]
    selection = _selection(whole["select"], played, data)
    return Experiment(whole, data, prepare_train, prepare_eval, tuple(found), selection)


def _selection(select: Mapping[str, Any], roles: Sequence[str], data: TaskData) -> Selection:
    """Return the rule of selection; the default role need not play."""
    role = select["role"]
    if role not in roles and role != Select().role:
        known = ", ".join(dict.fromkeys(roles))
        raise UserError(f"select.role is {role!r}; there are {known}")
    return make_selection(role, select["metric"], data.task.metrics(data.source.spec))


def _where(variant: str) -> str:
    return "config" if variant == "default" else f"config.variants.{variant}"


def _variant(
    name: str,
    config: Mapping[str, Any],
    data: TaskData,
    prepare: Callable[[Batch], Batch],
    labels: Callable[[], Any],
    earlier: list[str],
) -> Variant:
    if not config["roles"]:
        raise UserError("roles is empty; it needs at least one role with a model and terms")
    playing, judging = experiment_critics.split(config, _where(name))
    learning = [
        r for r in playing if config["roles"][r]["terms"] or experiment_critics.moves(r, config)
    ]
    if not learning:
        raise UserError("no role has terms, so nothing would be trained; give one a table of terms")

    def method(axis_name: str | None) -> tuple[dict[str, Player], Method]:
        table = {r: players.make_player(r, config, data, axis_name) for r in playing}
        try:
            return table, experiment_critics.wrap(
                co_train(table, axis_name=axis_name), critics, table, axis_name
            )
        except ValueError as error:
            raise UserError(f"roles.{error}") from error

    if judging and not data.task.rows_are_examples:
        raise UserError(f"roles.{next(iter(judging))} is a critic, which cannot look at regions")
    critics = {role: experiment_critics.make(role, config, labels) for role in judging}
    check_parts(config, config["devices"] or jax.device_count())
    table, plain = method(None)
    hparams = _hparams(config, table, critics)
    members = sweep.members({"seed": [config["seed"]], **config["sweep"]}, config["sweep_mode"])
    carried = {role: players.adapters(role, config) for role in table}
    shapes = check_shapes(plain, table, critics, hparams, data.source, prepare, carried)
    return Variant(
        name=name,
        config=config,
        players=table,
        critics=critics,
        method=lambda axis_name: method(axis_name)[1],
        optimizers={role: players.player_optimizer(role, config) for role in plain.trains},
        members=tuple(members),
        hparams=tuple(_place(hparams, member, table, critics) for member in members),
        parameters={
            role: sum(x.size for x in jax.tree.leaves(v.params)) for role, v in shapes.items()
        },
        **_given(config, table, shapes, data, earlier),
        **_equipment(config, table, data),
    )


def _equipment(
    config: Mapping[str, Any], table: Mapping[str, Player], data: TaskData
) -> dict[str, Any]:
    """Networks that `frozen` runs once for what terms ask of them: outputs, class means."""
    network = lambda role: experiment_models.make_network(role, config, data, None)  # noqa: E731
    return {
        "cached": {
            role: (network(role), players.cached_layers(role, config))
            for role, said in config["roles"].items()
            if said["cache"]
        },
        "class_means": {
            role: (network(role), layer)
            for role in table
            if (layer := players.means_layer(role, config)) is not None
        },
    }


def _hparams(
    config: Mapping[str, Any], table: Mapping[str, Player], critics: Mapping[str, CriticRole]
) -> dict[str, Any]:
    """Role -> the numbers that a compiled step takes as arguments."""
    found = {}
    for role in (*table, *critics):
        said = config["roles"][role]["optimizer"]
        rates = {key: float(said[key]) for key in ("learning_rate", "weight_decay")}
        if role in critics:
            found[role] = experiment_critics.hparams(role, critics[role], rates)
        else:
            found[role] = player_hparams(table[role], **rates)
    return found


def _given(
    config: Mapping[str, Any],
    table: Mapping[str, Player],
    shapes: Mapping[str, Variables],
    data: TaskData,
    earlier: list[str],
) -> dict[str, Any]:
    """Weights that do not start at random: from a file, or from an earlier variant by name."""
    files, new_heads, names, backbones = {}, [], {}, {}
    for role in table:
        said = config["roles"][role]
        where = f"roles.{role}"
        set_keys = [k for k in ("checkpoint", "from_variant", "backbone") if said[k] is not None]
        if len(set_keys) > 1:
            raise UserError(f"{where} sets both {' and '.join(set_keys)}; remove one")
        origin = set_keys[0] if set_keys else None
        if origin is None and said["keep_layers"]:
            raise UserError(
                f"{where}.keep_layers is set, but nothing is read; set {where}.checkpoint or "
                f"{where}.from_variant, or remove it"
            )
        if origin is not None and (carried := list(players.adapters(role, config))):
            raise UserError(
                f"{where} sets both {origin} and adapters.{carried[0]}; what is read holds no "
                "adapter, so a network that has one must start at random"
            )
        if said["checkpoint"] is not None:
            try:
                template = models.strip_wrappers(shapes[role])
                network, spec = data.task.describe_network(said["model"], data.source.spec)
                files[role], headless = initial_weights.read(
                    {**said, "model": network}, template, spec
                )
            except UserError as error:
                raise UserError(f"{where}.checkpoint: {error}") from error
            new_heads += [role] if headless else []
        elif said["from_variant"] is not None:
            if said["from_variant"] not in earlier:
                known = ", ".join(earlier) or "none"
                raise UserError(
                    f"{where}.from_variant is {said['from_variant']!r}; earlier variants: {known}"
                )
            names[role] = said["from_variant"]
        elif said["backbone"] is not None and table[role].trains:
            try:
                backbones[role] = initial_weights.backbone(
                    said["backbone"], shapes[role], data.source.spec
                )
            except UserError as error:
                raise UserError(f"{where}.backbone: {error}") from error
        elif not table[role].trains:
            raise UserError(
                f"{where} has no terms, so it never learns: set {where}.checkpoint (a folder "
                f"written by `export`) or {where}.from_variant, or give it terms"
            )
    return {
        "initial_variables": files,
        "new_heads": tuple(new_heads),
        "from_variant": names,
        "backbones": backbones,
    }


def _place(
    hparams: Mapping[str, Any],
    member: Mapping[str, Any],
    table: Mapping[str, Player],
    critics: Mapping[str, CriticRole],
) -> Mapping[str, Any]:
    """Put one member's swept values into the hparams, each checked against its domain."""
    for path, value in member.items():
        whole = path == "seed" and isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"sweep.{path} holds {value!r}; it must hold numbers")
        if path == "seed":
            if not whole or value < 0:
                raise UserError(f"seed is {value!r}; it must be a whole number >= 0")
            continue
        hparams = sweep.place(hparams, path, float(value))
    for role, player in table.items():
        for name, term in player.terms.items():
            domains = {**term.spec.scalars, "weight": terms.Scalar(1.0)}
            for scalar, domain in domains.items():
                value = hparams[role]["terms"][name][scalar]
                try:
                    terms.check_domain(scalar, value, domain)
                except UserError as error:
                    raise UserError(f"roles.{role}.terms.{name}.{error}") from error
    for role, comparison in critics.items():
        experiment_critics.check(role, comparison, hparams[role])
    for role, numbers in hparams.items():
        for key, value in numbers.get("optimizer", {}).items():
            if not 0 <= value < math.inf:
                raise UserError(
                    f"roles.{role}.optimizer.{key} is {value}; it must be >= 0 and finite"
                )
    return hparams
