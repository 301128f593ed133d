"""Co-training: every pairwise method as one table of players and their terms.

    players = {
        "teacher": Player(teacher, {"ce": ce, "forward_kl": toward_student}),
        "student": Player(student, {"ce": ce, "balanced_kl": toward_teacher}),
    }

A player without terms is frozen: no gradient, no statistics, evaluation mode. With a frozen
teacher the same function is offline distillation. Every summand belongs to one role and sees
the others under stop_gradient, so that the sum of all may be differentiated at once.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.methods.collectives import device_key, devices, gather, mean_share, part, rows
from kdjax.distill.terms import Term
from kdjax.types import Array, Aux, Batch, Method, Model, Outputs, Scalars, Variables

# pause(own, peer, batch) -> bool scalar: True while the role must not step
Pause = Callable[[Outputs, Outputs, Batch], Array]


class Player(NamedTuple):
    """A network, what it minimises, and (SwitOKD) when it waits: (rule, the role it watches).

    `moved`: it learns, with terms or without any, from what is built upon the method: a critic.
    `shares`: a role and names of its features, which join this player's batch: so two detectors
    judge the same regions.
    """

    model: Model
    terms: Mapping[str, Term]
    pause: tuple[Pause, str] | None = None
    moved: bool = False
    shares: tuple[str, tuple[str, ...]] | None = None

    @property
    def trains(self) -> bool:
        """Whether it learns at all; otherwise it is frozen."""
        return bool(self.terms) or self.moved


def role_key(key: Array, role: str) -> Array:
    """A key of its own for each role, whatever the order and number of roles."""
    return jax.random.fold_in(key, zlib.crc32(role.encode()) & 0x7FFFFFFF)


def switokd_pause(own: Outputs, peer: Outputs, batch: Batch) -> Array:
    """SwitOKD's expert mode: the teacher (own) waits while it is too far ahead of the student."""
    signal = losses.switch_signal(peer.logits, own.logits, batch["label"], mask=batch.get("mask"))
    return signal.expert


def player_hparams(
    player: Player, *, learning_rate: float, weight_decay: float = 0.0
) -> dict[str, Any]:
    """All numbers of a player that a compiled step takes as arguments; {} if it is frozen."""
    if not player.trains:
        return {}
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {
        "terms": {name: dict(term.scalars) for name, term in player.terms.items()},
        "optimizer": rates,
    }


def co_train(players: Mapping[str, Player], *, axis_name: str | None = None) -> Method:
    """Build the method of a table of players.

    Args:
      players: by role; a player without terms is frozen, unless a critic moves it.
      axis_name: the mapped axis over which the batch is divided (under pmap), or None.

    Returns:
      A Method. Its metrics: `<role>/loss`, `<role>/accuracy`, `<role>/<term>/raw` (mean of the
      loss), `<role>/<term>/weighted` (after weight, T^2 and ramp), `<role>/<term>/<quantity>` (what
      a term says beside its loss), `<role>/active`.

    Raises:
      ValueError: a term, a pause rule or `shares` looks toward a role that does not play, or to
        itself.
    """
    _check(players)
    trains = tuple(role for role, player in players.items() if player.trains)

    def init(key: Array, batch: Batch) -> dict[str, Variables]:
        return {r: p.model.init(role_key(key, r), batch) for r, p in players.items()}

    def loss(params, stats, batch: Batch, hparams, key: Array, step: Array | int = 0):
        batch = _blank({"mask": jnp.ones(batch["label"].shape[:1], jnp.float32), **batch})
        outputs, new_stats = {}, {}
        own_key = device_key(key, axis_name)  # other dropout on each device
        for role, player in sorted(players.items(), key=lambda item: item[1].shares is not None):
            outputs[role], new_stats[role] = player.model.apply(
                Variables(params[role], stats[role]),
                _with_shared(player, outputs, batch),
                train=player.trains,
                key=role_key(own_key, role),
            )
        detached = jax.lax.stop_gradient(outputs)
        total, metrics = jnp.float32(0), {}
        for role in trains:
            share, found = _player_loss(
                role, players[role], outputs, detached, batch, hparams[role], step, axis_name
            )
            total, metrics = total + share, {**metrics, **found}
        for role in players:
            if detached[role].logits.shape[-1] == 1 or batch["label"].ndim > 1:
                continue  # a regression; pairs, whose labels are hidden factors
            seen = rows(detached[role], batch)
            correct = jnp.argmax(detached[role].logits, axis=-1) == seen["label"]
            metrics[f"{role}/accuracy"] = mean_share(correct, seen["mask"], axis_name)
        active = {}
        for role, player in players.items():
            if player.pause is not None:
                waits, watched = player.pause
                pair = detached[role].logits, detached[watched].logits
                own, peer = (Outputs(z, {}) for z in gather(pair, axis_name))
                seen = _labels(rows(detached[role], batch))
                active[role] = ~waits(own, peer, gather(seen, axis_name))
        for role, value in active.items():
            metrics[f"{role}/active"] = value / devices(axis_name)
        return total, Aux(new_stats, metrics, active, outputs)

    return Method(init, loss, trains)


def _player_loss(
    role: str,
    player: Player,
    outputs: Mapping[str, Outputs],
    detached: Mapping[str, Outputs],
    batch: Batch,
    hparams: Mapping[str, Mapping[str, Scalars]],
    step: Array | int,
    axis_name: str | None,
) -> tuple[Array, dict[str, Array]]:
    """Sum the terms of one role; returns this device's share and its metrics."""
    total, metrics = jnp.float32(0), {}
    for name, term in player.terms.items():
        scalars = dict(hparams["terms"][name])
        factor = scalars.pop("weight")
        if term.anneal is not None:
            scalars["temperature"] = term.anneal.at(scalars["temperature"], step)
        if term.squared:
            factor = factor * scalars["temperature"] ** 2
        if term.ramp is not None:
            factor = factor * term.ramp(step)
        peers = tuple(detached[peer] for peer in term.toward)
        raw, said = _term_share(term, outputs[role], peers, batch, scalars, axis_name)
        total = total + factor * raw
        metrics[f"{role}/{name}/raw"] = raw
        metrics[f"{role}/{name}/weighted"] = factor * raw
        metrics |= {f"{role}/{name}/{quantity}": value for quantity, value in said.items()}
    metrics[f"{role}/loss"] = total
    return total, metrics


def _term_share(
    term: Term,
    own: Outputs,
    peers: tuple[Outputs, ...],
    batch: Batch,
    scalars: Scalars,
    axis_name: str | None,
) -> tuple[Array, dict[str, Array]]:
    """Mean over the global batch and over the peers, and what the term says beside it.

    Both are this device's share.
    """
    definition = term.definition
    batch = rows(own, batch, definition.rows)
    if definition.coupled:  # only what the term looks at travels between devices
        own = gather(part(own, [a for a, _ in definition.layers]), axis_name)
        kept = [b for _, b in definition.layers]
        peers = tuple(gather(part(peer, kept), axis_name) for peer in peers)
        batch = gather(_labels(batch), axis_name)
    groups = [peers] if definition.peers != "each" else [(peer,) for peer in peers]
    found = [definition.value(own, group, batch, scalars) for group in groups]
    pairs = [one if isinstance(one, tuple) else (one, {}) for one in found]
    if definition.coupled:  # every device has the whole of it
        each = jnp.float32(1 / (len(pairs) * devices(axis_name)))
        return jax.tree.map(lambda *x: each * sum(x), *pairs)
    shares = [mean_share(value, batch["mask"], axis_name) for value, _ in pairs]
    return sum(shares, jnp.float32(0)) / len(shares), {}


def _blank(batch: Batch) -> Batch:
    """Zero the masked rows of float inputs: 0 times a NaN there would reach every gradient."""
    real = batch["mask"] > 0

    def blank(x: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating) or jnp.shape(x)[:1] != real.shape:
            return x
        return jnp.where(real.reshape(-1, *[1] * (jnp.ndim(x) - 1)), x, 0)

    return {name: blank(x) for name, x in batch.items()}


def _with_shared(player: Player, outputs: Mapping[str, Outputs], batch: Batch) -> Batch:
    if player.shares is None:
        return batch
    guide, names = player.shares
    return {**batch, **{n: jax.lax.stop_gradient(outputs[guide].features[n]) for n in names}}


def _labels(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("label", "mask")}


def _check(players: Mapping[str, Player]) -> None:
    for role, player in players.items():
        watched = [("pause", player.pause[1])] if player.pause else []
        if player.shares is not None:
            guide = player.shares[0]
            watched.append(("regions", guide))
            if guide != role and guide in players and players[guide].shares is not None:
                raise ValueError(
                    f"{role}: regions of {guide!r}, which takes them from another role"
                )
        watched += [(name, peer) for name, term in player.terms.items() for peer in term.toward]
        for name, peer in watched:
            if peer not in players or peer == role:
                others = ", ".join(sorted(set(players) - {role})) or "none"
                raise ValueError(
                    f"{role}: {name} looks toward {peer!r}, which is not another player ({others})"
                )
    if not any(player.trains for player in players.values()):
        raise ValueError("no role has terms: nothing would be trained")
