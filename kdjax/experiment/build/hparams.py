"""The hyperparameters of a variant, arguments of the compiled step, by role and member."""

import math
from collections.abc import Mapping
from typing import Any

from kdjax.distill import (
    CriticRole,
    Player,
    check_critic_hparams,
    critic_hparams,
    player_hparams,
    terms,
)
from kdjax.errors import UserError, is_number, prefix_errors
from kdjax.experiment.build import on_policy, random_sweep
from kdjax.experiment.config.schema import Config
from kdjax.train import sweep

Hparams = Mapping[str, Any]


def make_hparams(
    config: Config, players: Mapping[str, Player], critics: Mapping[str, CriticRole]
) -> Hparams:
    """Return the hyperparameters of a config, by role."""
    hparams = {}
    for role in (*players, *critics):
        table = config.roles[role].optimizer
        rate, decay = float(table.learning_rate), float(table.weight_decay)
        if role in critics:
            critic, scalars = critics[role].critic, critics[role].terms
            with prefix_errors(f"roles.{role}: "):
                hparams[role] = critic_hparams(
                    critic, scalars, learning_rate=rate, weight_decay=decay
                )
        else:
            hparams[role] = player_hparams(players[role], learning_rate=rate, weight_decay=decay)
            hparams[role] |= on_policy.hparams(config.roles[role])
    return hparams


def list_members(config: Config, hparams: Hparams) -> list[dict[str, Any]]:
    """Return the swept values of every member of a config, always with a seed."""
    table = {"seed": [config.seed], **sweep.applicable(config.sweep, hparams)}
    if config.sweep_mode == "random":
        return random_sweep.members(table, config.sweep_members, config.sweep_seed)
    for path, values in table.items():
        if isinstance(values, Mapping):
            raise UserError(
                f"sweep.{path} is {values!r}; a distribution needs sweep_mode = random, and "
                f"{config.sweep_mode} needs a list of values"
            )
    if "seed" not in config.sweep:  # no list of its own, which a zip would need
        del table["seed"]
    return [{"seed": config.seed, **row} for row in sweep.members(table, config.sweep_mode)]


def place_member(
    hparams: Hparams,
    member: Mapping[str, Any],
    players: Mapping[str, Player],
    critics: Mapping[str, CriticRole],
) -> Hparams:
    """Return the hyperparameters with a member's swept values, checked against their domains."""
    for path in sorted(member, key=lambda path: -path.count("*")):  # the most specific one last
        value = member[path]
        if not is_number(value):
            raise UserError(f"sweep.{path} contains {value!r}; it must contain only numbers")
        if path != "seed":
            hparams = sweep.place(hparams, path, float(value))
        elif not isinstance(value, int) or value < 0:
            raise UserError(f"seed is {value!r}; it must be a whole number >= 0")
    for role, player in players.items():
        for name, term in player.terms.items():
            domains = {**term.spec.scalars, "weight": terms.Scalar(1.0)}
            with prefix_errors(f"roles.{role}.terms.{name}."):
                for scalar, domain in domains.items():
                    terms.check_domain(scalar, hparams[role]["terms"][name][scalar], domain)
    for role, critic in critics.items():
        with prefix_errors(f"roles.{role}."):
            check_critic_hparams(critic.critic, hparams[role]["terms"])
    for role, numbers in hparams.items():
        for key, value in numbers.get("optimizer", {}).items():
            if not 0 <= value < math.inf:
                raise UserError(
                    f"roles.{role}.optimizer.{key} is {value}; it must be >= 0 and finite"
                )
        with prefix_errors(f"roles.{role}.on_policy."):
            on_policy.check(numbers.get("on_policy", {}))
    return hparams
