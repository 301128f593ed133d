"""Critics in a method: roles with parameters and a memory that compare two players.

    critic = CriticRole(contrast(labels), between=("student", "teacher"))
    method = with_critic(co_train(players), "crd", critic, models)

A critic is a role of the same state: it has params, stats, an optimizer and hparams, but no logits.
Its terms train its own params and the first of the two players.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.distill.methods.co_train import role_key
from kdjax.distill.methods.collectives import (
    device_count,
    device_key,
    gather,
    local_masked_mean,
    local_rows,
    select_features,
)
from kdjax.distill.terms import Critic, PlayerInputs, Scalar, WeightSchedule, check_domain
from kdjax.errors import UserError, check_layer
from kdjax.types import Array, Batch, Method, Model, Outputs, Scalars, Variables

MOVES = ("first", "both")


class CriticRole(NamedTuple):
    """A critic, the two players that it compares, and its terms.

    `between`: the student, which the critic trains, and the teacher. `terms`: by term, the scalars
    that differ from the critic's defaults. `weight_schedules`: by term, a factor on its weight as a
    function of the step. `moves`: train the "first" player or "both"; `inputs`: the entries of a
    batch that they read, for a critic with a penalty at the inputs.
    """

    critic: Critic
    between: tuple[str, str]
    terms: Mapping[str, Mapping[str, float]] = {}
    weight_schedules: Mapping[str, WeightSchedule] = {}
    moves: str = "first"
    inputs: tuple[str, str] = ("image", "image")


def critic_hparams(
    critic: Critic,
    terms: Mapping[str, Mapping[str, float]],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    """Return the hyperparameters of a critic, an argument of the compiled step.

    Args:
      critic: the critic.
      terms: its terms in use, each with the scalars that differ from the defaults ("weight": 1).
      learning_rate: the learning rate of its params.
      weight_decay: the weight decay of its params.

    Raises:
      UserError: no term, one that the critic does not have, or a scalar outside its domain.
    """
    known = ", ".join(critic.terms)
    if not terms:
        raise UserError(f"no terms, so the critic would train no role; it has {known}")
    completed = {}
    for name, changes in terms.items():
        if name not in critic.terms:
            raise UserError(f"terms.{name}: this critic has no such term; it has {known}")
        scalars = {"weight": Scalar(1.0), **critic.terms[name]}
        unknown = sorted(set(changes) - set(scalars))
        if unknown:
            raise UserError(
                f"terms.{name}: this term has no scalar {unknown[0]!r}; it has {', '.join(scalars)}"
            )
        completed[name] = {scalar: changes.get(scalar, s.default) for scalar, s in scalars.items()}
    check_critic_hparams(critic, completed)
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {"terms": completed, "optimizer": rates}


def check_critic_hparams(critic: Critic, terms: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse a value outside its domain; `terms` as in `critic_hparams`, with all scalars."""
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
    critic_role: CriticRole,
    models: Mapping[str, Model],
    *,
    axis_name: str | None = None,
) -> Method:
    """Add a critic to a method: sum over its terms of weight * schedule(step) * mean over batch.

    The gradient reaches the critic's params and the first player. The second player is detached, as
    teachers are, unless the critic trains both.

    Args:
      method: from `co_train` or `with_critic`.
      role: a name for the critic.
      critic_role: the critic and its settings.
      models: the models of the two players, by role.
      axis_name: as in `co_train`; a coupled critic reads the batch of all devices.

    Returns:
      A Method with one more trained role. It adds the metrics `<role>/loss`,
      `<role>/<term>/raw`, `<role>/<term>/weighted` and what the critic reports, `<role>/<name>`.

    Raises:
      ValueError: a role that exists already, the same player twice, a frozen player that the critic
        would have to train, or a penalty at the inputs with only one trained player.
      UserError: by the loss, a batch without an entry that the critic needs.

    >>> from kdjax import models
    >>> from kdjax.distill import critics, terms
    >>> from kdjax.distill import CriticRole, Player, co_train
    >>> network, ce = models.build("mlp", num_classes=2), terms.make_term(terms.cross_entropy())
    >>> players = {"teacher": Player(network, {}), "student": Player(network, {"ce": ce})}
    >>> critic = critics.contrast(jnp.array([0, 1]), num_negatives=1)
    >>> with_critic(
    ...     co_train(players), "crd", CriticRole(critic, between=("student", "teacher")),
    ...     {"student": network, "teacher": network},
    ... ).trains
    ('student', 'crd')
    """
    _check(method, role, critic_role, models)
    critic, between = critic_role.critic, critic_role.between

    def init(key: Array, batch: Batch) -> dict[str, Variables]:
        variables = method.init(key, batch)
        student, teacher = (_output_shapes(models[r], variables[r], batch) for r in between)
        return {**variables, role: critic.init(role_key(key, role), student, teacher, batch)}

    def loss(params, stats, batch: Batch, hparams, key: Array, step: Array | int = 0):
        total, aux = method.loss(params, stats, batch, hparams, key, step)
        student, teacher = _compared_outputs(critic_role, aux.outputs)
        critic_batch = _critic_batch(critic, role, batch)
        critic_key = role_key(key, role)
        if critic.coupled:  # one key, so stats stay the same on all devices
            student, teacher, critic_batch = gather((student, teacher, critic_batch), axis_name)
        else:
            critic_key = device_key(critic_key, axis_name)
        scalars, weights = _split_hparams(hparams[role]["terms"], critic_role, step)
        variables = Variables(params[role], stats[role])
        values, new_stats, reported = critic.loss(
            variables, student, teacher, critic_batch, scalars, critic_key
        )
        if critic.input_penalty is not None:
            players = {r: Variables(params[r], stats[r]) for r in between}
            inputs = _player_inputs(critic_role, models, players, batch, axis_name)
            penalties, penalty_metrics = critic.input_penalty(
                variables, inputs, scalars, critic_key
            )
            values = {name: value + penalties.get(name, 0.0) for name, value in values.items()}
            reported = {**reported, **penalty_metrics}
        count = device_count(axis_name)
        metrics = {f"{role}/{name}": value / count for name, value in reported.items()}
        share = jnp.float32(0)
        for name, value in values.items():
            raw = value
            if jnp.ndim(value):
                axis = None if critic.coupled else axis_name
                raw = local_masked_mean(value, critic_batch["mask"], axis)
            if critic.coupled or not jnp.ndim(value):
                raw = raw / count
            share = share + weights[name] * raw
            metrics[f"{role}/{name}/raw"] = raw
            metrics[f"{role}/{name}/weighted"] = weights[name] * raw
        metrics[f"{role}/loss"] = share
        return total + share, aux._replace(
            stats={**aux.stats, role: new_stats}, metrics={**aux.metrics, **metrics}
        )

    return Method(init, loss, (*method.trains, role))


def _check(method: Method, role: str, critic_role: CriticRole, models: Mapping[str, Model]) -> None:
    between, moves = critic_role.between, critic_role.moves
    student, teacher = between
    if moves not in MOVES:
        raise ValueError(f"{role}.moves is {moves!r}; it must be one of {', '.join(MOVES)}")
    if critic_role.critic.input_penalty is not None and moves != "both":
        raise ValueError(
            f"{role} differentiates both players at their inputs (metric='inputs'), which trains "
            f"both; set {role}.moves='both', or metric='features'"
        )
    if student == teacher or not {student, teacher} <= set(models) or role in between:
        raise ValueError(
            f"{role}.between is {tuple(between)}; it must name two players of {', '.join(models)}"
        )
    if role in method.trains or role in models:
        raise ValueError(f"{role}: this role exists already; give the critic another name")
    if student not in method.trains:
        raise ValueError(
            f"{role}.between is {tuple(between)}, but {student} is frozen, so this critic would "
            "train no player; the first role must have terms"
        )
    if moves == "both" and teacher not in method.trains:
        raise ValueError(f"{role}.moves is both, but {teacher} is frozen; set moves='first'")


def _compared_outputs(
    critic_role: CriticRole, outputs: Mapping[str, Outputs]
) -> tuple[Outputs, Outputs]:
    """Return the layers that the critic reads; the second player's detached unless trained."""
    (student, teacher), layers = critic_role.between, critic_role.critic.layers
    for own, peer in layers:
        check_layer(f"a critic reads {student}", own, outputs[student].features)
        check_layer(f"a critic reads {teacher}", peer, outputs[teacher].features)
    read_by_critic = select_features(outputs[teacher], [name for _, name in layers])
    if critic_role.moves == "first":
        read_by_critic = jax.lax.stop_gradient(read_by_critic)
    return select_features(outputs[student], [name for name, _ in layers]), read_by_critic


def _player_inputs(
    critic_role: CriticRole,
    models: Mapping[str, Model],
    variables: Mapping[str, Variables],
    batch: Batch,
    axis_name: str | None,
) -> PlayerInputs:
    """Return the players as functions of their inputs; every device computes its own rows."""

    def network(player: str, entry: str) -> Callable[[Array], Outputs]:
        def apply(x: Array) -> Outputs:
            return models[player].apply(variables[player], {**batch, entry: x}, train=False)[0]

        return apply

    (student, teacher), (first, second) = critic_role.between, critic_role.inputs
    return PlayerInputs(
        (network(student, first), network(teacher, second)),
        gather((batch[first], batch[second]), axis_name),
        lambda x: local_rows(x, axis_name),
    )


def _output_shapes(model: Model, variables: Variables, batch: Batch) -> Outputs:
    return jax.eval_shape(lambda v, b: model.apply(v, b, train=False)[0], variables, dict(batch))


def _critic_batch(critic: Critic, role: str, batch: Batch) -> dict[str, Array]:
    """Return the entries of a batch that a critic reads."""
    for name in critic.needs:
        if name not in batch:
            raise UserError(
                f"roles.{role} needs batch[{name!r}], but the batch has {', '.join(sorted(batch))}"
            )
    ones = jnp.ones(jnp.shape(batch["label"])[:1], jnp.float32)
    batch = {"mask": ones, **batch}
    return {name: batch[name] for name in ("label", "mask", *critic.needs)}


def _split_hparams(
    terms: Mapping[str, Scalars], critic_role: CriticRole, step: Array | int
) -> tuple[Mapping[str, Scalars], Mapping[str, Any]]:
    """Split the hyperparameters of all terms into scalars of the loss and weights at a step."""
    scalars = {n: {k: v for k, v in t.items() if k != "weight"} for n, t in terms.items()}
    weights = {name: numbers["weight"] for name, numbers in terms.items()}
    for name, schedule in critic_role.weight_schedules.items():
        weights[name] = weights[name] * schedule(step)
    return scalars, weights
