"""Co-training: pairwise methods, each written as a table of players and their terms.

    players = {
        "teacher": Player(teacher, {"ce": ce, "forward_kl": toward_student}),
        "student": Player(student, {"ce": ce, "balanced_kl": toward_teacher}),
    }

A player without terms is frozen: it gets no gradient, updates no statistics and runs in evaluation
mode. A frozen teacher gives offline distillation. Every summand belongs to one role, and the other
roles are under stop_gradient, so the sum over all roles can be differentiated at once.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.methods.collectives import (
    device_count,
    device_key,
    gather,
    label_and_mask,
    local_masked_mean,
    local_share,
    rows,
    select_features,
)
from kdjax.distill.terms import StepWindow, Term, WeightSchedule, class_means_name
from kdjax.errors import check_entries, check_layer
from kdjax.types import Array, Aux, Batch, Method, Model, Outputs, Scalars, Variables

# pause(own, watched, batch) -> bool scalar: True while the role is not trained
Pause = Callable[[Outputs, Outputs, Batch], Array]


class Player(NamedTuple):
    """A network, the terms that it minimises, and (SwitOKD) its pause: (rule, watched role).

    `trained_by_critic`: a critic trains it, with or without terms, by the `critic_schedules`.
    `shares`: a role and its features (regions of a detector) that this player's batch gets, too.
    """

    model: Model
    terms: Mapping[str, Term]
    pause: tuple[Pause, str] | None = None
    trained_by_critic: bool = False
    critic_schedules: tuple[WeightSchedule | None, ...] = ()
    shares: tuple[str, tuple[str, ...]] | None = None

    @property
    def trains(self) -> bool:
        """True unless the player is frozen."""
        return bool(self.terms) or self.trained_by_critic

    @property
    def windows(self) -> tuple[StepWindow, ...]:
        """Step windows of the terms and of critics' if all have one; outside the player pauses."""
        schedules = [term.weight_schedule for term in self.terms.values()]
        schedules += self.critic_schedules
        windows = tuple(s for s in schedules if isinstance(s, StepWindow))
        return windows if len(windows) == len(schedules) else ()


class _Forward(NamedTuple):
    """The outputs of all players on this device's batch, and other inputs of the terms."""

    batch: Batch
    outputs: Mapping[str, Outputs]
    detached: Mapping[str, Outputs]
    step: Array | int
    axis_name: str | None


def role_key(key: Array, role: str) -> Array:
    """Return a key for a role, independent of the order and number of roles."""
    return jax.random.fold_in(key, zlib.crc32(role.encode()) & 0x7FFFFFFF)


def switokd_pause(own: Outputs, watched: Outputs, batch: Batch) -> Array:
    """Return whether SwitOKD pauses the teacher (own); see `losses.switch_signal`."""
    signal = losses.switch_signal(
        watched.logits, own.logits, batch["label"], mask=batch.get("mask")
    )
    return signal.expert


def player_hparams(
    player: Player, *, learning_rate: float, weight_decay: float = 0.0
) -> dict[str, Any]:
    """Return the hyperparameters of a player, an argument of the compiled step; {} if frozen."""
    if not player.trains:
        return {}
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {
        "terms": {name: dict(term.scalars) for name, term in player.terms.items()},
        "optimizer": rates,
    }


def co_train(players: Mapping[str, Player], *, axis_name: str | None = None) -> Method:
    """Build a method from a table of players.

    Args:
      players: by role; a player without terms is frozen, unless a critic trains it.
      axis_name: the mapped axis over which the batch is divided (under pmap), or None.

    Returns:
      A Method. Its metrics: `<role>/loss`, `<role>/accuracy`, `<role>/<term>/raw` (mean of the
      loss), `<role>/<term>/weighted` (times weight, T^2 and schedule), `<role>/<term>/<quantity>`
      (other quantities that a term logs), `<role>/active`.

    Raises:
      ValueError: a term, a pause rule or `shares` names an unknown role or its own.
      UserError: by the loss, a network without a layer that a term reads, a batch without labels.
    """
    _check(players)
    trains = tuple(role for role, player in players.items() if player.trains)

    def init(key: Array, batch: Batch) -> dict[str, Variables]:
        return {r: p.model.init(role_key(key, r), batch) for r, p in players.items()}

    def loss(params, stats, batch: Batch, hparams, key: Array, step: Array | int = 0):
        check_entries("co_train", ("label",), batch)
        batch = _zero_masked_rows(batch)
        variables = {role: Variables(params[role], stats[role]) for role in players}
        dropout_keys = _dropout_keys(players, key, axis_name)
        outputs, new_stats = _apply(players, variables, batch, dropout_keys)
        forward = _Forward(batch, outputs, jax.lax.stop_gradient(outputs), step, axis_name)
        total, metrics = jnp.float32(0), {}
        for role in trains:
            terms, scalars = players[role].terms, hparams[role]["terms"]
            role_loss, role_metrics = _sum_terms(role, terms, scalars, forward)
            total, metrics = total + role_loss, {**metrics, **role_metrics}
        active = _active(players, forward)
        if not any(term.spec.sums for player in players.values() for term in player.terms.values()):
            metrics |= _accuracies(forward)  # needs all logits, which such terms do not compute
        metrics |= {f"{r}/active": on / device_count(axis_name) for r, on in active.items()}
        return total, Aux(new_stats, metrics, active, outputs)

    return Method(init, loss, trains)


def _dropout_keys(
    players: Mapping[str, Player], key: Array, axis_name: str | None
) -> dict[str, Array]:
    """Return a key for each role, different on each device."""
    key = device_key(key, axis_name)
    return {role: role_key(key, role) for role in players}


def _apply(
    players: Mapping[str, Player],
    variables: Mapping[str, Variables],
    batch: Batch,
    keys: Mapping[str, Array],
) -> tuple[dict[str, Outputs], dict[str, Any]]:
    """Run all networks, those with `shares` last; return outputs and new stats by role."""
    outputs, stats = {}, {}
    for role, player in sorted(players.items(), key=lambda item: item[1].shares is not None):
        player_batch = _with_shared_regions(player, outputs, batch)
        outputs[role], stats[role] = player.model.apply(
            variables[role], player_batch, train=player.trains, key=keys[role]
        )
    return outputs, stats


def _with_shared_regions(player: Player, outputs: Mapping[str, Outputs], batch: Batch) -> Batch:
    if player.shares is None:
        return batch
    source, names = player.shares
    for name in names:
        check_layer(f"regions of {source}", name, outputs[source].features)
    return {**batch, **{n: jax.lax.stop_gradient(outputs[source].features[n]) for n in names}}


def _zero_masked_rows(batch: Batch) -> Batch:
    """Add a mask, and zero masked rows of float inputs: a NaN would reach the gradients."""
    batch = {"mask": jnp.ones(batch["label"].shape[:1], jnp.float32), **batch}
    real = batch["mask"] > 0

    def zero_masked(x: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating) or jnp.shape(x)[:1] != real.shape:
            return x
        return jnp.where(real.reshape(-1, *[1] * (jnp.ndim(x) - 1)), x, 0)

    return {name: zero_masked(x) for name, x in batch.items()}


def _sum_terms(
    role: str, terms: Mapping[str, Term], hparams: Mapping[str, Scalars], forward: _Forward
) -> tuple[Array, dict[str, Array]]:
    """Sum the terms of one role; return this device's share and its metrics."""
    total, metrics = jnp.float32(0), {}
    for name, term in terms.items():
        scalars = dict(hparams[name])
        factor = scalars.pop("weight")
        if term.temperature_schedule is not None:
            scalars["temperature"] = term.temperature_schedule.at(
                scalars["temperature"], forward.step
            )
        if term.scale_by_temperature_squared:
            factor = factor * scalars["temperature"] ** 2
        if term.weight_schedule is not None:
            factor = factor * term.weight_schedule(forward.step)
        raw, logged = _term_share(role, name, term, scalars, forward)
        total = total + factor * raw
        metrics[f"{role}/{name}/raw"] = raw
        metrics[f"{role}/{name}/weighted"] = factor * raw
        metrics |= {f"{role}/{name}/{quantity}": value for quantity, value in logged.items()}
    metrics[f"{role}/loss"] = total
    return total, metrics


def _term_share(
    role: str, name: str, term: Term, scalars: Scalars, forward: _Forward
) -> tuple[Array, dict[str, Array]]:
    """Return this device's share of a term's mean over batch and teachers, and of what it logs."""
    spec, axis_name = term.spec, forward.axis_name
    student = forward.outputs[role]
    teachers = tuple(forward.detached[teacher] for teacher in term.toward)
    _check_layers(role, name, term, forward.outputs)
    batch = rows(student, forward.batch, spec.rows)
    if spec.own_logits:
        student = student._replace(logits=student.features[spec.own_logits])
    if spec.coupled:  # gather only what the term reads
        student = gather(select_features(student, spec.own_layers), axis_name)
        teachers = tuple(gather(select_features(t, spec.peer_layers), axis_name) for t in teachers)
        batch = gather(label_and_mask(batch), axis_name)
    groups = [(teacher,) for teacher in teachers] if spec.teachers == "each" else [teachers]
    values = [spec.loss_fn(student, group, batch, scalars) for group in groups]
    pairs = [value if isinstance(value, tuple) else (value, {}) for value in values]
    if spec.coupled:  # every device has the value of the global batch
        factor = jnp.float32(1 / (len(pairs) * device_count(axis_name)))
        return jax.tree.map(lambda *x: factor * sum(x), *pairs)
    share = local_share if spec.sums else local_masked_mean
    shares = [share(value, batch["mask"], axis_name) for value, _ in pairs]
    return sum(shares, jnp.float32(0)) / len(shares), {}


def _check_layers(role: str, name: str, term: Term, outputs: Mapping[str, Outputs]) -> None:
    means = term.spec.class_means
    peer_layers = (*term.spec.peer_layers, *([] if means is None else [class_means_name(means)]))
    layers = {role: term.spec.own_layers} | dict.fromkeys(term.toward, peer_layers)
    for player, needed in layers.items():
        for layer in needed:
            check_layer(f"{role}: {name} reads {player}", layer, outputs[player].features)


def _accuracies(forward: _Forward) -> dict[str, Array]:
    """Return this device's share of each role's accuracy, where the labels are classes."""
    metrics = {}
    for role, outputs in forward.detached.items():
        row_batch = rows(outputs, forward.batch)
        label, mask = row_batch["label"], row_batch["mask"]
        if outputs.logits.shape[-1] == 1 or label.ndim > 1:
            continue  # regressions; pairs, whose labels are latent factors
        correct = jnp.argmax(outputs.logits, axis=-1) == label
        metrics[f"{role}/accuracy"] = local_masked_mean(correct, mask, forward.axis_name)
    return metrics


def _active(players: Mapping[str, Player], forward: _Forward) -> dict[str, Array]:
    """Return whether each role with a pause rule or step windows is trained at this step."""
    active = {}
    for role, player in players.items():
        if windows := player.windows:
            active[role] = jnp.any(jnp.stack([w.is_open(forward.step) for w in windows]))
        if player.pause is not None:
            pause, watched = player.pause
            logits = forward.detached[role].logits, forward.detached[watched].logits
            own, other = (Outputs(z, {}) for z in gather(logits, forward.axis_name))
            labels = label_and_mask(rows(forward.detached[role], forward.batch))
            is_paused = pause(own, other, gather(labels, forward.axis_name))
            active[role] = ~is_paused & active.get(role, True)
    return active


def _check(players: Mapping[str, Player]) -> None:
    for role, player in players.items():
        watched = [("pause", player.pause[1])] if player.pause else []
        if player.shares is not None:
            source = player.shares[0]
            watched.append(("regions", source))
            if source != role and source in players and players[source].shares is not None:
                raise ValueError(
                    f"{role}: its regions come from {source!r}, which takes its own from another "
                    "role"
                )
        watched += [(name, peer) for name, term in player.terms.items() for peer in term.toward]
        for name, peer in watched:
            if peer not in players or peer == role:
                others = ", ".join(sorted(set(players) - {role})) or "none"
                raise ValueError(
                    f"{role}: {name} names {peer!r}, which is not another player ({others})"
                )
    if not any(player.trains for player in players.values()):
        raise ValueError("no role has terms, so nothing would be trained")
