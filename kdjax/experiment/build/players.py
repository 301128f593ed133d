"""From the `roles` of a config to players: networks, terms and optimizers by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from kdjax import models
from kdjax.distill import terms
from kdjax.distill.methods import Pause, Player, switokd_pause
from kdjax.experiment.build import critics as experiment_critics
from kdjax.experiment.build import models as experiment_models
from kdjax.experiment.build import schedules
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config.schema import Term as TermTable
from kdjax.train import optimizer
from kdjax.train.step import Optimizer
from kdjax.types import UserError

PAUSES = {"switokd": switokd_pause}


def make_player(
    role: str, config: Mapping[str, Any], data: TaskData, axis_name: str | None
) -> Player:
    """Build the network and the terms of one role; `axis_name` as in `co_train`."""
    said, model = (
        config["roles"][role],
        experiment_models.make_network(role, config, data, axis_name),
    )
    if said["cache"]:
        _check_cache(role, config)
        layers = cached_layers(role, config)
        model = models.with_cache(model, size=data.source.size["train"], layers=layers)
    layer = means_layer(role, config)
    if layer is not None:
        model = models.with_class_means(
            model,
            layer=layer,
            name=terms.class_means_name(layer),
            num_classes=data.source.spec.num_classes,
        )
    moved = experiment_critics.moves(role, config)
    if said["remat"] and (said["terms"] or moved):
        model = models.with_remat(model)
    carried = {name: _adapter(role, name, config, axis_name) for name in adapters(role, config)}
    if carried:
        model = models.with_adapters(model, carried)
    found = {name: _term(role, name, term) for name, term in said["terms"].items()}
    return Player(
        model,
        found,
        _pause(said["pause"]),
        trained_by_critic=moved,
        shares=_shares(role, config, data),
    )


def _adapter(
    role: str, name: str, config: Mapping[str, Any], axis_name: str | None
) -> models.Adapter:
    said = dict(config["roles"][role]["adapters"][name])
    kind = said.pop("kind")
    try:
        if kind == "linear":
            return models.linear_adapter(**said)
        if kind == "norm_direction":
            return models.norm_direction_adapter(**said, axis_name=axis_name)
        dtype = experiment_models.PRECISIONS[config["precision"]]
        return models.fusion_adapter(**said, dtype=dtype, axis_name=axis_name)
    except UserError as error:
        raise UserError(f"roles.{role}.adapters.{name}: {error}") from error


def adapters(role: str, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The adapters of a role that some term looks through, and the features that each makes.

    A variant builds no others: an experiment names its adapters once for all variants.
    """
    toward = _terms_toward(role, config)
    seen = {theirs for name, said in toward for _, theirs in _layers(name, said)}
    seen |= set(experiment_critics.layers(role, config))
    for name, said in config["roles"][role]["terms"].items():
        seen |= {own for own, _ in _layers(name, said)}
    found = {}
    for name, said in config["roles"][role]["adapters"].items():
        levels = range(1, len(said["layers"]) + 1) if said["kind"] == "fusion" else ("",)
        made = tuple(f"{name}{level}" for level in levels)
        if seen & set(made):
            found[name] = made
    return found


def check_adapters(variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an adapter that no term of any variant looks through.

    Args:
      variants: completed configs, by name.
    """
    named, used = {}, set()
    for config in variants.values():
        for role, said in config["roles"].items():
            named |= {(role, name): adapter["kind"] for name, adapter in said["adapters"].items()}
            used |= {(role, name) for name in adapters(role, config)}
    for (role, name), kind in named.items():
        if (role, name) not in used:
            term = "terms.hierarchical_context" if kind == "fusion" else "a term"
            raise UserError(
                f"roles.{role}.adapters.{name} is used by no term; set own_layer = {name!r} in "
                f"{term} of {role}, or remove the adapter"
            )


def _check_cache(role: str, config: Mapping[str, Any]) -> None:
    if config["roles"][role]["terms"]:
        raise UserError(f"roles.{role}.cache is set, but {role} trains: its outputs change")
    if config["data"]["augment"] != "none":
        raise UserError(
            f"roles.{role}.cache is set, but data.augment is {config['data']['augment']!r}: each "
            "view of an image has outputs of its own; set data.augment=none or cache=False"
        )


def cached_layers(role: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The features of a role that other roles' terms and critics look at."""
    found = dict.fromkeys(experiment_critics.layers(role, config))
    for name, term in _terms_toward(role, config):
        found |= dict.fromkeys(theirs for _, theirs in _layers(name, term))
    return tuple(found)


def _terms_toward(role: str, config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and table of every term that looks at a role."""
    return [
        (name, term)
        for other, said in config["roles"].items()
        for name, term in said["terms"].items()
        if other != role and name in terms.TERM_SPECS
        if role in ((term["toward"],) if isinstance(term["toward"], str) else term["toward"])
    ]


def means_layer(role: str, config: Mapping[str, Any]) -> str | None:
    """The layer of a role whose class means some other role's term needs, if any."""
    found = [_readable(name, term) for name, term in _terms_toward(role, config)]
    layers = {definition.class_means for definition in found if definition is not None}
    layers.discard(None)
    if len(layers) > 1:
        raise UserError(f"roles.{role}: class means of several layers are asked for: {layers}")
    return next(iter(layers), None)


def _define(name: str, said: Mapping[str, Any]) -> terms.TermSpec:
    """A term's definition with the layers that the config names."""
    define = terms.TERM_SPECS[name]
    known = inspect.signature(define).parameters
    return define(**{key: said[key] for key in known if key in said})


def _layers(name: str, said: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The pairs (own, peer) of features that a term looks at."""
    found = _readable(name, said)
    return () if found is None else found.layers


def _readable(name: str, said: Mapping[str, Any]) -> terms.TermSpec | None:
    """A term's definition; None of one that `_term` will refuse, by its key."""
    try:
        return _define(name, said) if name in terms.TERM_SPECS else None
    except UserError:
        return None


def player_optimizer(role: str, config: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer of a role, for `num_steps` steps."""
    said = dict(config["roles"][role]["optimizer"])
    planned = dict(said.pop("schedule"))
    name = said.pop("name")
    for key in ("learning_rate", "weight_decay"):
        del said[key]
    try:
        schedule = schedules.learning_rate_schedule(
            planned.pop("name"), num_steps=config["num_steps"], **planned
        )
        return optimizer.make_optimizer(name, schedule, **said)
    except UserError as error:
        raise UserError(f"roles.{role}.optimizer: {error}") from error


def _term(role: str, name: str, said: Mapping[str, Any]) -> terms.Term:
    where = f"roles.{role}.terms.{name}"
    if name not in terms.TERM_SPECS:
        raise UserError(f"{where}: no such loss; there are {_list(terms.TERM_SPECS)}")
    static = inspect.signature(terms.TERM_SPECS[name]).parameters
    scalars = {k: v for k, v in said.items() if k not in TermTable.model_fields and k not in static}
    toward = (said["toward"],) if isinstance(said["toward"], str) else tuple(said["toward"])
    ramp = schedules.weight_schedule(where, said["ramp"])
    for key, value in scalars.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number")
    try:
        return terms.make_term(
            _define(name, said),
            toward=toward,
            scalars={**scalars, "weight": said["weight"]},
            scale_by_temperature_squared=said["temperature_squared"],
            weight_schedule=ramp,
            temperature_schedule=schedules.temperature_schedule(said["anneal"]),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _pause(said: Mapping[str, Any]) -> tuple[Pause, str] | None:
    if said["name"] is None:
        return None
    return PAUSES[said["name"]], said["watch"]


def _shares(
    role: str, config: Mapping[str, Any], data: TaskData
) -> tuple[str, tuple[str, ...]] | None:
    guide = config["roles"][role]["regions"]
    if guide is None:
        return None
    if data.task.rows_are_examples:
        raise UserError(f"roles.{role}.regions is {guide!r}, but the data has no boxes; remove it")
    return guide, models.REGION_KEYS


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
