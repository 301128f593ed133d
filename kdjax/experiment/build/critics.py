"""Critics of a variant: roles with `between`, which compare two players."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdjax.data import unpad_batch
from kdjax.distill import CriticRole, Player, critics, with_critic
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build.schedules import weight_schedule
from kdjax.experiment.build.validate import check_scalars
from kdjax.experiment.config.schema import Config, TemperatureAnneal, Term
from kdjax.types import Method, Source


def make_critic(role: str, config: Config, labels: Callable[[], np.ndarray]) -> CriticRole:
    """Build the critic of a role; `labels()` returns the labels of the training split."""
    table, where = config.roles[role], f"roles.{role}"
    with prefix_errors(f"{where}.model: "):
        critic = critics.build(table.model.name, table.model.options, labels)
    for name, term in table.terms.items():
        _check_term(f"{where}.terms.{name}", term)
        if name in critic.terms:  # `critic_hparams` refuses others
            check_scalars(f"{where}.terms.{name}", term.options)
    ramps = {
        name: ramp
        for name, term in table.terms.items()
        if (ramp := weight_schedule(f"{where}.terms.{name}", term)) is not None
    }
    _check_networks(role, config)
    first, second = table.between
    return CriticRole(
        critic,
        (first, second),
        {name: {"weight": term.weight, **term.options} for name, term in table.terms.items()},
        ramps,
        table.moves,
        (config.roles[first].input, config.roles[second].input),
    )


def _check_term(where: str, term: Term) -> None:
    foreign = {
        "loss": bool(term.loss),
        "toward": bool(term.toward),
        "temperature_squared": bool(term.temperature_squared),
        "anneal": term.anneal != TemperatureAnneal(),
    }
    for key, is_set in foreign.items():
        if is_set:
            raise UserError(f"{where}.{key} is set; a critic's term has none")


def _check_networks(role: str, config: Config) -> None:
    """Refuse a critic that is Lipschitz in the *inputs* if the encoders are not Lipschitz."""
    table = config.roles[role]
    options = {"kind": "bilinear_bjorck", **table.model.options}
    if options.get("metric") != "inputs" or "_" not in options["kind"]:
        return
    for player in table.between:
        name = config.roles[player].model.name
        if name != "lipschitz_mlp":
            raise UserError(
                f"roles.{role}.model.metric is inputs, but {player} ({name}) is not Lipschitz; set "
                f"roles.{player}.model.name=lipschitz_mlp, a plain kind of critic, which has a "
                "penalty, or metric=features"
            )


def schedules_on(player: str, critic_roles: Mapping[str, CriticRole]) -> tuple[Any, ...]:
    """Return the weight schedules of the critics' terms that train a player; None has none."""
    return tuple(
        critic.weight_schedules.get(name)
        for critic in critic_roles.values()
        if player == critic.between[0] or (player in critic.between and critic.moves == "both")
        for name in critic.terms
        if name not in critic.critic.own_terms
    )


def add_critics(
    method: Method,
    critic_roles: Mapping[str, CriticRole],
    players: Mapping[str, Player],
    axis_name: str | None,
) -> Method:
    """Add the critics to a method of players."""
    networks = {role: player.model for role, player in players.items()}
    for role, critic in critic_roles.items():
        method = with_critic(method, role, critic, networks, axis_name=axis_name)
    return method


def training_labels(source: Source) -> np.ndarray:
    """Return the labels of the training split by id; reads a streamed set once."""
    if source.arrays is not None:
        return np.asarray(source.arrays["label"])
    labels = np.zeros(source.size["train"], np.int32)
    for batch in source.evals["train"]():
        unpadded = unpad_batch(batch)
        labels[unpadded["id"]] = unpadded["label"]
    return labels
