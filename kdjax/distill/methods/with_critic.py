"""Critics: roles with parameters and a memory of their own, that compare two players.

    method = with_critic(
        co_train(players), "crd", contrast(labels), between=("student", "teacher"), models=models
    )

A critic is one more role in the same state: it has params, stats, an optimizer and hparams, but
no logits. Its terms are minimised by its own params and by the first of the two players.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.distill.methods.co_train import role_key
from kdjax.distill.methods.collectives import (
    device_key,
    device_rows,
    devices,
    gather,
    mean_share,
    part,
)
from kdjax.distill.terms import Critic, Ramp, Scalar, Through, check_domain
from kdjax.types import Array, Batch, Method, Model, Outputs, Scalars, UserError, Variables

MOVES = ("first", "both")


class CriticRole(NamedTuple):
    """A critic, the two players that it compares, and its terms as the config has them.

    `moves`: "first" or "both" of the players; `inputs`: the entries of a batch that they read.
    """

    critic: Critic
    between: tuple[str, str]
    terms: Mapping[str, Mapping[str, float]]
    ramps: Mapping[str, Ramp]
    moves: str
    inputs: tuple[str, str]


def critic_hparams(
    critic: Critic,
    terms: Mapping[str, Mapping[str, float]],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    """All numbers of a critic that a compiled step takes as arguments.

    Args:
      critic: whose numbers.
      terms: which of its terms count, each with what differs from the defaults ("weight" is 1).
      learning_rate: of its params.
      weight_decay: of its params.

    Raises:
      UserError: no term, one that the critic does not have, or a scalar outside its domain.
    """
    known = ", ".join(critic.terms)
    if not terms:
        raise UserError(f"no terms, so that the critic trains nobody; it has {known}")
    found = {}
    for name, given in terms.items():
        if name not in critic.terms:
            raise UserError(f"terms.{name}: this critic has no such term; it has {known}")
        scalars = {"weight": Scalar(1.0), **critic.terms[name]}
        unknown = sorted(set(given) - set(scalars))
        if unknown:
            raise UserError(
                f"terms.{name}: no scalar {unknown[0]!r} in this term; it has {', '.join(scalars)}"
            )
        found[name] = {scalar: given.get(scalar, s.default) for scalar, s in scalars.items()}
    check_critic_hparams(critic, found)
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {"terms": found, "optimizer": rates}


def check_critic_hparams(critic: Critic, terms: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse a value outside its domain; `terms` as in `critic_hparams`, complete."""
    for name, scalars in terms.items():
        domains = {"weight": Scalar(1.0), **critic.terms[name]}
        for scalar, value in scalars.items():
            try:
                check_domain(scalar, value, domains[scalar])
            except UserError as error:
                raise UserError(f"terms.{name}.{error}") from error


def with_critic(
    method: Method,
    role: str,
    critic: Critic,
    *,
    between: tuple[str, str],
    models: Mapping[str, Model],
    moves: str = "first",
    inputs: tuple[str, str] = ("image", "image"),
    ramps: Mapping[str, Ramp] | None = None,
    axis_name: str | None = None,
) -> Method:
    """Add a critic to a method: sum over its terms of weight * ramp(step) * mean over the batch.

    The gradient reaches the critic's params and the first player; the second one is detached, as
    every other side is, unless the critic moves both.

    Args:
      method: from `co_train`, or one that has a critic already.
      role: a name for the critic.
      critic: what it computes.
      between: the player that it trains and the one that it compares with.
      models: of these two roles.
      moves: "first", or "both" players.
      inputs: the entries of a batch that the two read, for a critic that looks through them.
      ramps: by term, a factor on its weight as a function of the step.
      axis_name: as in `co_train`; a coupled critic sees the batch of all devices.

    Returns:
      A Method with one more role that trains. It adds the metrics `<role>/loss`,
      `<role>/<term>/raw`, `<role>/<term>/weighted` and what the critic reports, `<role>/<name>`.

    Raises:
      ValueError: a role that plays already, the same player twice, a frozen one that the critic
        should move, or a critic that looks through players of which it moves only one.
      UserError: by the loss, a batch without an entry that the critic needs.

    >>> from kdjax import models
    >>> from kdjax.distill import critics, terms
    >>> from kdjax.distill.methods import Player, co_train
    >>> network, ce = models.build("mlp", num_classes=2), terms.make_term(terms.cross_entropy())
    >>> players = {"teacher": Player(network, {}), "student": Player(network, {"ce": ce})}
    >>> with_critic(
    ...     co_train(players), "crd", critics.contrast(jnp.array([0, 1]), num_negatives=1),
    ...     between=("student", "teacher"), models={"student": network, "teacher": network},
    ... ).trains
    ('student', 'crd')
    """
    _check(method, role, critic, between, models, moves)
    own_role, peer_role = between
    ramps = ramps or {}

    def init(key: Array, batch: Batch) -> dict[str, Variables]:
        variables = method.init(key, batch)
        own, peer = (_shapes(models[r], variables[r], batch) for r in between)
        return {**variables, role: critic.init(role_key(key, role), own, peer, batch)}

    def loss(params, stats, batch: Batch, hparams, key: Array, step: Array | int = 0):
        total, aux = method.loss(params, stats, batch, hparams, key, step)
        own = part(aux.outputs[own_role], [a for a, _ in critic.layers])
        peer = part(aux.outputs[peer_role], [b for _, b in critic.layers])
        peer = jax.lax.stop_gradient(peer) if moves == "first" else peer
        whole, batch = batch, _read(critic, role, batch)
        critic_key = role_key(key, role)
        if critic.coupled:  # one key, so that stats stay the same on all devices
            own, peer, batch = gather((own, peer, batch), axis_name)
        else:
            critic_key = device_key(critic_key, axis_name)
        scalars, weights = _numbers(hparams[role]["terms"], ramps, step)
        variables = Variables(params[role], stats[role])
        values, after, said = critic.loss(variables, own, peer, batch, scalars, critic_key)
        if critic.through is not None:
            more, heard = _look_through(
                critic.through, variables, between, models, inputs, (params, stats), whole,
                scalars, critic_key, axis_name,
            )  # fmt: skip
            values = {n: value + more.get(n, 0.0) for n, value in values.items()}
            said = {**said, **heard}
        count = devices(axis_name)
        metrics = {f"{role}/{name}": value / count for name, value in said.items()}
        share = jnp.float32(0)
        for name, value in values.items():
            raw = value
            if jnp.ndim(value):
                raw = mean_share(value, batch["mask"], None if critic.coupled else axis_name)
            if critic.coupled or not jnp.ndim(value):
                raw = raw / count
            share = share + weights[name] * raw
            metrics[f"{role}/{name}/raw"] = raw
            metrics[f"{role}/{name}/weighted"] = weights[name] * raw
        metrics[f"{role}/loss"] = share
        return total + share, aux._replace(
            stats={**aux.stats, role: after}, metrics={**aux.metrics, **metrics}
        )

    return Method(init, loss, (*method.trains, role))


def _check(
    method: Method,
    role: str,
    critic: Critic,
    between: tuple[str, str],
    models: Mapping[str, Model],
    moves: str,
) -> None:
    own, peer = between
    if moves not in MOVES:
        raise ValueError(f"{role}.moves is {moves!r}; it must be one of {', '.join(MOVES)}")
    if critic.through is not None and moves != "both":
        raise ValueError(
            f"{role} looks through both players at their inputs (metric='inputs'), which moves "
            f"both; set {role}.moves='both', or metric='features'"
        )
    if own == peer or own not in models or peer not in models or role in between:
        raise ValueError(
            f"{role}.between is {tuple(between)}; it must name two players of {', '.join(models)}"
        )
    if role in method.trains or role in models:
        raise ValueError(f"{role}: there is such a role already; name the critic otherwise")
    if own not in method.trains:
        raise ValueError(
            f"{role}.between is {tuple(between)}, but {own} is frozen, so that this critic would "
            f"train nobody; name a role that has terms first"
        )
    if moves == "both" and peer not in method.trains:
        raise ValueError(f"{role}.moves is both, but {peer} is frozen; set moves='first'")


def _look_through(
    through: Through,
    variables: Variables,
    between: tuple[str, str],
    models: Mapping[str, Model],
    inputs: tuple[str, str],
    tables: tuple[Mapping[str, Any], Mapping[str, Any]],
    batch: Batch,
    scalars: Mapping[str, Scalars],
    key: Array,
    axis_name: str | None,
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """What a critic adds at other inputs than the batch's; every device computes its own rows."""
    params, stats = tables

    def network(player: str, entry: str) -> Callable[[Array], Outputs]:
        own = Variables(params[player], stats[player])
        return lambda z: models[player].apply(own, {**batch, entry: z}, train=False)[0]

    networks = (network(between[0], inputs[0]), network(between[1], inputs[1]))
    x, y = gather(tuple(batch[entry] for entry in inputs), axis_name)
    share = lambda rows: device_rows(rows, axis_name)  # noqa: E731
    return through(variables, networks, x, y, share, scalars, key)


def _shapes(model: Model, variables: Variables, batch: Batch) -> Outputs:
    return jax.eval_shape(lambda v, b: model.apply(v, b, train=False)[0], variables, dict(batch))


def _read(critic: Critic, role: str, batch: Batch) -> dict[str, Array]:
    """What a critic sees of a batch."""
    for name in critic.needs:
        if name not in batch:
            raise UserError(
                f"roles.{role} needs batch[{name!r}], but the batch has {', '.join(sorted(batch))}"
            )
    ones = jnp.ones(jnp.shape(batch["label"])[:1], jnp.float32)
    batch = {"mask": ones, **batch}
    return {name: batch[name] for name in ("label", "mask", *critic.needs)}


def _numbers(
    terms: Mapping[str, Scalars], ramps: Mapping[str, Ramp], step: Array | int
) -> tuple[Mapping[str, Scalars], Mapping[str, Any]]:
    """Divide the numbers of all terms into what the loss takes and what multiplies it."""
    scalars = {n: {k: v for k, v in t.items() if k != "weight"} for n, t in terms.items()}
    weights = {
        name: said["weight"] * ramps[name](step) if name in ramps else said["weight"]
        for name, said in terms.items()
    }
    return scalars, weights
