"""From the `roles` of a config to players: networks, terms and optimizers by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from kdjax import config as configs
from kdjax import models, terms
from kdjax.methods import Pause, Player, switokd_pause
from kdjax.train import optimizer
from kdjax.train.step import Optimizer
from kdjax.types import Model, Source, UserError

PRECISIONS = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
}  # of the computation; params stay float32
PAUSES = {"switokd": switokd_pause}
RAMPS: Mapping[str, Callable[[Mapping[str, Any]], terms.Ramp]] = {
    "linear": lambda said: terms.linear_ramp(_steps(said)),
    "sigmoid": lambda said: terms.sigmoid_ramp(_steps(said)),
    "cosine": lambda said: terms.cosine_ramp(_steps(said)),
    "piecewise": lambda said: terms.piecewise_ramp(said["boundaries"], _factors(said)),
}


def term_scalars() -> dict[str, dict[str, float]]:
    """The scalars of every known term, with defaults; layers of feature terms as well."""
    found = {}
    for name, define in terms.DEFINITIONS.items():
        static = {n: p.default for n, p in inspect.signature(define).parameters.items()}
        scalars = {n: scalar.default for n, scalar in define().scalars.items()}
        found[name] = {**static, **scalars}
    return found


def make_network(
    role: str, config: Mapping[str, Any], source: Source, axis_name: str | None
) -> Model:
    """Build the network of one role, without what terms add to it."""
    said = config["roles"][role]
    options = {k: v for k, v in said["model"].items() if k != "name"}
    if not said["model"].get("name"):
        raise UserError(f"roles.{role}.model.name is not set; there are {_list(models.names())}")
    if config["precision"] not in PRECISIONS:
        raise UserError(f"precision is {config['precision']!r}; there are {_list(PRECISIONS)}")
    try:
        return models.build(
            said["model"]["name"],
            num_classes=source.spec.num_classes,
            dtype=PRECISIONS[config["precision"]],
            axis_name=axis_name,
            **options,
        )
    except UserError as error:
        raise UserError(f"roles.{role}.model: {error}") from error


def make_player(
    role: str, config: Mapping[str, Any], source: Source, axis_name: str | None
) -> Player:
    """Build the network and the terms of one role; `axis_name` as in `co_train`."""
    said, model = config["roles"][role], make_network(role, config, source, axis_name)
    if said["cache"]:
        _check_cache(role, config)
        layers = cached_layers(role, config)
        model = models.with_cache(model, size=source.size["train"], layers=layers)
    layer = means_layer(role, config)
    if layer is not None:
        model = models.with_class_means(
            model,
            layer=layer,
            name=terms.class_means_name(layer),
            num_classes=source.spec.num_classes,
        )
    adapter = said["adapter"]
    if adapter["layer"] is not None:
        if not adapter["width"]:
            raise UserError(f"roles.{role}.adapter.width is not set; it must be the peer's width")
        model = models.with_adapter(model, layer=adapter["layer"], width=adapter["width"])
    found = {name: _term(role, name, term) for name, term in said["terms"].items()}
    return Player(model, found, _pause(role, said["pause"]))


def _check_cache(role: str, config: Mapping[str, Any]) -> None:
    if config["roles"][role]["terms"]:
        raise UserError(f"roles.{role}.cache is set, but {role} trains: its outputs change")
    if config["data"]["augment"] != "none":
        raise UserError(
            f"roles.{role}.cache is set, but data.augment is {config['data']['augment']!r}: each "
            "view of an image has outputs of its own; set data.augment=none or cache=False"
        )


def cached_layers(role: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The features of a role that other roles' terms look at."""
    found: dict[str, None] = {}
    for name, term in _terms_toward(role, config):
        found |= dict.fromkeys(theirs for _, theirs in _define(name, term).layers)
    return tuple(found)


def _terms_toward(role: str, config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and table of every term that looks at a role."""
    return [
        (name, term)
        for other, said in config["roles"].items()
        for name, term in said["terms"].items()
        if other != role and name in terms.DEFINITIONS
        if role in ((term["toward"],) if isinstance(term["toward"], str) else term["toward"])
    ]


def means_layer(role: str, config: Mapping[str, Any]) -> str | None:
    """The layer of a role whose class means some other role's term needs, if any."""
    layers = {_define(name, term).class_means for name, term in _terms_toward(role, config)}
    layers.discard(None)
    if len(layers) > 1:
        raise UserError(f"roles.{role}: class means of several layers are asked for: {layers}")
    return next(iter(layers), None)


def _define(name: str, said: Mapping[str, Any]) -> terms.Definition:
    """A term's definition with the layers that the config names."""
    define = terms.DEFINITIONS[name]
    known = inspect.signature(define).parameters
    return define(**{key: said[key] for key in known if key in said})


def player_optimizer(role: str, config: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer of a role, for `num_steps` steps."""
    said = dict(config["roles"][role]["optimizer"])
    planned = dict(said.pop("schedule"))
    name = said.pop("name")
    for key in ("learning_rate", "weight_decay"):
        del said[key]
    try:
        schedule = optimizer.make_schedule(
            planned.pop("name"), num_steps=config["num_steps"], **planned
        )
        return optimizer.make_optimizer(name, schedule, **said)
    except UserError as error:
        raise UserError(f"roles.{role}.optimizer: {error}") from error


def _term(role: str, name: str, said: Mapping[str, Any]) -> terms.Term:
    where = f"roles.{role}.terms.{name}"
    if name not in terms.DEFINITIONS:
        raise UserError(f"{where}: no such loss; there are {_list(terms.DEFINITIONS)}")
    static = inspect.signature(terms.DEFINITIONS[name]).parameters
    scalars = {k: v for k, v in said.items() if k not in configs.TERM and k not in static}
    toward = (said["toward"],) if isinstance(said["toward"], str) else tuple(said["toward"])
    ramp = said["ramp"]["name"]
    if ramp is not None and ramp not in RAMPS:
        raise UserError(f"{where}.ramp.name is {ramp!r}; there are {_list(RAMPS)}")
    for key, value in {**scalars, "weight": said["weight"]}.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number")
    try:
        return terms.make_term(
            _define(name, said),
            toward=toward,
            scalars=scalars,
            weight=said["weight"],
            squared=said["temperature_squared"],
            ramp=None if ramp is None else RAMPS[ramp](said["ramp"]),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _pause(role: str, said: Mapping[str, Any]) -> tuple[Pause, str] | None:
    if said["name"] is None:
        return None
    if said["name"] not in PAUSES:
        raise UserError(f"roles.{role}.pause.name is {said['name']!r}; there are {_list(PAUSES)}")
    return PAUSES[said["name"]], said["watch"]


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _steps(said: Mapping[str, Any]) -> int:
    if said["steps"] < 1:
        raise UserError(f"ramp.steps is {said['steps']}; it must be >= 1")
    return said["steps"]


def _factors(said: Mapping[str, Any]) -> tuple[float, ...]:
    boundaries, factors = tuple(said["boundaries"]), tuple(said["factors"])
    if len(factors) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise UserError(
            f"ramp.boundaries is {boundaries} and ramp.factors {factors}; boundaries must rise, "
            "and there must be one factor more than boundaries"
        )
    return factors
