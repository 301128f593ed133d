"""Roles of a variant: its players, its critics, the terms and the features that they read."""

import inspect
from collections.abc import Mapping
from typing import NamedTuple

from kdjax.distill import critics
from kdjax.distill.terms import TERM_SPECS, VIEW_LOGITS, Term, TermSpec, make_term
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build import schedules
from kdjax.experiment.build.validate import check_scalars
from kdjax.experiment.config import adapters, schema
from kdjax.experiment.config.resolve import term_factory
from kdjax.experiment.config.schema import Config

# settings of players only
_PLAYER_KEYS = ("checkpoint", "from_variant", "backbone", "regions", "cache", "adapters")


class Roles(NamedTuple):
    """Roles of a variant; `terms` are the players' terms, by role and name."""

    config: Config
    players: tuple[str, ...]
    critics: tuple[str, ...]
    terms: Mapping[str, Mapping[str, Term]]

    def trained_by_critic(self, role: str) -> bool:
        """Return whether a critic trains both its players and this is one of them."""
        both = (self.config.roles[critic] for critic in self.critics)
        return any(critic.moves == "both" and role in critic.between for critic in both)

    def learns(self, role: str) -> bool:
        """Return whether a player has terms, or a critic trains it."""
        return bool(self.terms[role]) or self.trained_by_critic(role)

    def layers_read(self, role: str) -> tuple[str, ...]:
        """Return the features of a player that critics and other players' terms read."""
        layers = []
        for critic in (self.config.roles[name] for name in self.critics):
            if role in critic.between:
                pair = critics.layers(critic.model.name, critic.model.options)
                layers += pair[critic.between.index(role)]
        layers += [peer for spec in self._specs_toward(role) for _, peer in spec.layers]
        return tuple(dict.fromkeys(layers))

    def adapters(self, role: str) -> dict[str, tuple[str, ...]]:
        """Return the adapters of a player that some term reads, and the features of each.

        A variant builds only these, because experiments define adapters for all variants.
        """
        own = [layer for term in self.terms[role].values() for layer, _ in term.spec.layers]
        read = {*self.layers_read(role), *own}
        features = {
            name: tuple(f"{name}{level}" for level in range(1, len(adapter.layers) + 1))
            if isinstance(adapter, (adapters.FusionAdapter, adapters.ConnectorAdapter))
            else (name,)
            for name, adapter in self.config.roles[role].adapters.items()
        }
        return {name: layers for name, layers in features.items() if read & set(layers)}

    def reads_second_view(self, role: str) -> bool:
        """Return whether a term reads a player's logits of the second view of an image."""
        own = [layer for term in self.terms[role].values() for layer, _ in term.spec.layers]
        return VIEW_LOGITS in {*own, *self.layers_read(role)}

    def parameters(self, role: str) -> tuple[str, ...]:
        """Return the paths of a player's parameters that some term reads."""
        paths = [path for term in self.terms[role].values() for path in term.spec.own_parameters]
        paths += [path for spec in self._specs_toward(role) for path in spec.parameters]
        return tuple(dict.fromkeys(paths))

    def means_layer(self, role: str) -> str | None:
        """Return the layer of a player whose class means another player's term needs, if any."""
        layers = {spec.class_means for spec in self._specs_toward(role)} - {None}
        if len(layers) > 1:
            raise UserError(f"roles.{role}: terms need class means of several layers: {layers}")
        return next(iter(layers), None)

    def _specs_toward(self, role: str) -> list[TermSpec]:
        return [
            term.spec
            for other, of_other in self.terms.items()
            for term in of_other.values()
            if other != role and role in term.toward
        ]


def resolve_roles(config: Config) -> Roles:
    """Separate players from critics, check both, and make the terms of the players.

    Raises:
      UserError: no role is trained; a critic that is not between two players, or has settings of
        players; a term that does not exist or has wrong keys.
    """
    if not config.roles:
        raise UserError("roles is empty; it needs at least one role with a model and terms")
    players = tuple(role for role, table in config.roles.items() if not table.between)
    for role, table in config.roles.items():
        if table.between:
            _check_critic(role, table, players)
        elif table.moves != schema.Role().moves:
            raise UserError(
                f"roles.{role}.moves is set, but {role} is no critic; remove it, or give "
                "it `between`"
            )
    terms_by_role = {
        role: {
            name: _make_term(f"roles.{role}.terms.{name}", name, table)
            for name, table in config.roles[role].terms.items()
        }
        for role in players
    }
    roles = Roles(
        config, players, tuple(r for r in config.roles if r not in players), terms_by_role
    )
    if not any(roles.learns(role) for role in players):
        raise UserError("no role has terms, so nothing would be trained; give one a table of terms")
    return roles


def _check_critic(role: str, table: schema.Role, players: tuple[str, ...]) -> None:
    pair = table.between
    if len(pair) != 2 or len(set(pair)) != 2 or not set(pair) <= set(players):
        known = ", ".join(players) or "none"
        raise UserError(f"roles.{role}.between is {pair}; it must name two players of {known}")
    if table.model.name not in critics.names():
        raise UserError(
            f"roles.{role}.model.name is {table.model.name!r}; a role with `between` is a "
            f"critic, and there are {', '.join(critics.names())}"
        )
    forbidden = [key for key in _PLAYER_KEYS if getattr(table, key)]
    forbidden += ["pause"] if table.pause.name else []
    forbidden += ["input"] if table.input != schema.Role().input else []
    if forbidden:
        raise UserError(
            f"roles.{role}.{forbidden[0]} is set, but {role} is a critic, which always starts at "
            "random; remove it"
        )


def _make_term(where: str, name: str, table: schema.Term) -> Term:
    with prefix_errors(f"{where}.loss: "):
        define = term_factory(name, table.loss)
    if define is None:
        raise UserError(f"{where}: no such loss; there are {', '.join(sorted(TERM_SPECS))}")
    layer_keys = inspect.signature(define).parameters
    layers = {key: value for key, value in table.options.items() if key in layer_keys}
    scalars = {key: value for key, value in table.options.items() if key not in layer_keys}
    schedule = schedules.weight_schedule(where, table)
    check_scalars(where, scalars)
    with prefix_errors(f"{where}: "):
        return make_term(
            define(**layers),
            toward=table.peers,
            scalars={**scalars, "weight": table.weight},
            scale_by_temperature_squared=table.temperature_squared,
            weight_schedule=schedule,
            temperature_schedule=schedules.temperature_schedule(table.anneal),
        )


def check_adapters(variants: Mapping[str, Roles]) -> None:
    """Refuse an adapter that no term of any variant reads."""
    kinds, used = {}, set()
    for roles in variants.values():
        for role in roles.players:
            adapters = roles.config.roles[role].adapters
            kinds |= {(role, name): adapter.kind for name, adapter in adapters.items()}
            used |= {(role, name) for name in roles.adapters(role)}
    for (role, name), kind in kinds.items():
        if (role, name) not in used:
            term = "terms.hierarchical_context" if kind == "fusion" else "a term"
            raise UserError(
                f"roles.{role}.adapters.{name} is used by no term; set own_layer = {name!r} in "
                f"{term} of {role}, or remove the adapter"
            )
