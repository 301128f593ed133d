"""From a config to a run: the only reader of a ConfigDict, and the only place for names.

`build(config)` checks everything that can be checked without training: keys, types, names,
numbers, shapes of features, files. What it returns holds functions, not strings.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from kdjax import config as configs
from kdjax import data, exports, models, players, selection, terms
from kdjax.checks import check_numbers, check_shapes
from kdjax.methods import Player, co_train, player_hparams
from kdjax.train import sweep
from kdjax.train.step import Optimizer, Prepare
from kdjax.types import Array, Batch, Method, Model, Source, Spec, UserError, Variables


class Variant(NamedTuple):
    """One static program of a run: what is compiled once, and the members it is mapped over."""

    name: str
    config: Mapping[str, Any]
    table: Mapping[str, Player]
    method: Callable[[str | None], Method]  # of the axis name
    tx: Mapping[str, Optimizer]
    members: tuple[Mapping[str, Any], ...]  # swept values, "seed" always among them
    hparams: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, int]  # by role
    given: Mapping[str, Variables]  # roles that start from a file
    from_variant: Mapping[str, str]  # roles that start from an earlier variant
    means: Mapping[str, tuple[Model, str]]  # frozen roles asked for class means: network, layer
    cached: Mapping[str, tuple[Model, tuple[str, ...]]]  # frozen roles with a cache, its layers


class Run(NamedTuple):
    """All that a config says, as functions and numbers."""

    config: Mapping[str, Any]
    source: Source
    prepare_train: Prepare
    prepare_eval: Callable[[Batch], Batch]
    variants: tuple[Variant, ...]


def complete(config: Any) -> dict[str, Any]:
    """A config (ConfigDict or dict) as a plain dict with every default filled in."""
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return configs.complete(plain, players.term_scalars())


def build(config: Any) -> Run:
    """Build a run from a config.

    Args:
      config: a ConfigDict or a dict; what it does not say is filled in from `config.DEFAULTS`.

    Raises:
      UserError: one line that names the key and what would be right.
    """
    whole = complete(config)
    configs.check(whole)
    check_numbers(whole)
    source = _load(whole)
    prepare_train, prepare_eval = _prepare(whole, source)
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    found: list[Variant] = []
    for name, said in configs.variants(plain).items():
        where = "config" if name == "default" else f"config.variants.{name}"
        full = configs.complete(said, players.term_scalars())
        configs.check(full, where)
        try:
            found.append(_variant(name, full, source, prepare_eval, [v.name for v in found]))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    selection.check(whole["select"], [role for variant in found for role in variant.table])
    return Run(whole, source, prepare_train, prepare_eval, tuple(found))


def _variant(
    name: str,
    config: Mapping[str, Any],
    source: Source,
    prepare: Callable[[Batch], Batch],
    earlier: list[str],
) -> Variant:
    if not config["roles"]:
        raise UserError("roles is empty; it needs at least one role with a model and terms")
    if not any(said["terms"] for said in config["roles"].values()):
        raise UserError("no role has terms, so nothing would be trained; give one a table of terms")

    def method(axis_name: str | None) -> tuple[dict[str, Player], Method]:
        table = {r: players.make_player(r, config, source, axis_name) for r in config["roles"]}
        try:
            return table, co_train(table, axis_name=axis_name)
        except ValueError as error:
            raise UserError(f"roles.{error}") from error

    table, plain = method(None)
    hparams = {}
    for role, said in config["roles"].items():
        rates = {key: float(said["optimizer"][key]) for key in ("learning_rate", "weight_decay")}
        hparams[role] = player_hparams(table[role], **rates)
    members = sweep.members({"seed": [config["seed"]], **config["sweep"]}, config["sweep_mode"])
    shapes = check_shapes(plain, table, hparams, source, prepare)
    given, from_variant = _given(config, shapes, source.spec, earlier)
    return Variant(
        name=name,
        config=config,
        table=table,
        method=lambda axis_name: method(axis_name)[1],
        tx={role: players.player_optimizer(role, config) for role in plain.trains},
        members=tuple(members),
        hparams=tuple(_place(hparams, member, table) for member in members),
        parameters={
            role: sum(x.size for x in jax.tree.leaves(v.params)) for role, v in shapes.items()
        },
        given=given,
        from_variant=from_variant,
        cached={
            role: (
                players.make_network(role, config, source, None),
                players.cached_layers(role, config),
            )
            for role, said in config["roles"].items()
            if said["cache"]
        },
        means={
            role: (players.make_network(role, config, source, None), layer)
            for role in table
            if (layer := players.means_layer(role, config)) is not None
        },
    )


def _given(
    config: Mapping[str, Any], shapes: Mapping[str, Variables], spec: Spec, earlier: list[str]
) -> tuple[dict[str, Variables], dict[str, str]]:
    """Weights that do not start at random: from a file, or from an earlier variant by name."""
    files, names = {}, {}
    for role, said in config["roles"].items():
        where = f"roles.{role}"
        if said["checkpoint"] is not None and said["from_variant"] is not None:
            raise UserError(f"{where} sets both checkpoint and from_variant; remove one")
        if said["checkpoint"] is not None and said["adapter"]["layer"] is not None:
            raise UserError(
                f"{where} sets both checkpoint and adapter; an export holds no adapter, so a "
                "network that has one must start at random"
            )
        if said["checkpoint"] is not None:
            try:
                template = models.detach(shapes[role])
                files[role] = exports.load(said["checkpoint"], said["model"], template, spec)
            except UserError as error:
                raise UserError(f"{where}.checkpoint: {error}") from error
        elif said["from_variant"] is not None:
            if said["from_variant"] not in earlier:
                known = ", ".join(earlier) or "none"
                raise UserError(
                    f"{where}.from_variant is {said['from_variant']!r}; earlier variants: {known}"
                )
            names[role] = said["from_variant"]
        elif not said["terms"]:
            raise UserError(
                f"{where} has no terms, so it never learns: set {where}.checkpoint (a folder "
                f"written by `export`) or {where}.from_variant, or give it terms"
            )
    return files, names


def _place(
    hparams: Mapping[str, Any], member: Mapping[str, Any], table: Mapping[str, Player]
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
            domains = {**term.definition.scalars, "weight": terms.Scalar(1.0)}
            for scalar, domain in domains.items():
                value = hparams[role]["terms"][name][scalar]
                try:
                    terms.check_domain(scalar, value, domain)
                except UserError as error:
                    raise UserError(f"roles.{role}.terms.{name}.{error}") from error
        for key, value in hparams[role].get("optimizer", {}).items():
            if not 0 <= value < math.inf:
                raise UserError(
                    f"roles.{role}.optimizer.{key} is {value}; it must be >= 0 and finite"
                )
    return hparams


def _prepare(config: Mapping[str, Any], source: Source) -> tuple[Prepare, Callable[[Batch], Batch]]:
    still = config["data"]["augment"] == "none"  # then a frozen network may answer from a cache
    make = data.prepare(source.spec, augment=config["data"]["augment"])

    def train(batch: Batch, key: Array) -> Batch:
        batch = dict(batch)
        found = make(data.lookup(batch.pop("arrays", None), batch), key)
        return {**found, models.ROW: batch["id"]} if still else found

    return train, make


def _load(config: Mapping[str, Any]) -> Source:
    said = dict(config["data"])
    for key in ("augment", "mean", "std", "seed"):
        del said[key]
    name = said.pop("name")
    if not name:
        raise UserError(f"data.name is not set; there are {', '.join(data.known())}")
    for key in ("validation", "test"):  # a flag turns 300 into 300.0
        if isinstance(said[key], float) and said[key] >= 1 and said[key].is_integer():
            said[key] = int(said[key])
    source = data.load(
        name,
        batch_size=config["batch_size"],
        eval_batch_size=config["eval_batch_size"],
        **said,
    )
    for split in ("validation", "test"):
        if not source.size.get(split):
            raise UserError(
                f"data.{split} leaves no {split} examples; every choice is made on validation "
                "and every number reported on test, so that both are needed"
            )
    return source._replace(spec=_normalised(source.spec, config["data"]))


def _normalised(spec: Spec, said: Mapping[str, Any]) -> Spec:
    """The spec with the mean and std that a config gives instead of the training split's."""
    for key in ("mean", "std"):
        values = said[key]
        if values is None:
            continue
        if len(values) != spec.shape[-1] or (key == "std" and not all(v > 0 for v in values)):
            raise UserError(
                f"data.{key} is {tuple(values)}; it must hold {spec.shape[-1]} numbers, one a "
                f"channel{', all > 0' if key == 'std' else ''}"
            )
        spec = spec._replace(**{key: tuple(float(value) for value in values)})
    return spec
