"""Checks of one traced step before training: shapes of inputs, features and terms."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from kdjax.distill import CriticRole, Player
from kdjax.distill.terms import TermSpec
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.config.schema import Config
from kdjax.types import Batch, Method, Outputs, Variables


def check_shapes(
    method: Method,
    players: Mapping[str, Player],
    critics: Mapping[str, CriticRole],
    hparams: Mapping[str, Any],
    batch: Batch,
    config: Config,
) -> dict[str, Variables]:
    """Trace one step without computing it, and return the shapes of all variables by role.

    `batch` has shapes only; `config` has the adapters.

    Raises:
      UserError: an image of a shape that a network cannot read; two layers of a feature term that
        do not exist or differ in width.
    """
    key = jax.random.key(0)
    shapes, outputs = {}, {}
    for role, player in players.items():
        shapes[role], outputs[role] = _trace_network(role, player, batch)
    for role, player in players.items():
        for name, term in player.terms.items():
            where = f"roles.{role}.terms.{name}"
            for peer in term.toward or (role,):
                if term.spec.class_means is not None and players[peer].trains:
                    raise UserError(
                        f"{where}: class means need a frozen network, but {peer} is trained; give "
                        f"roles.{peer} no terms and a checkpoint or from_variant"
                    )
                _check_vocabularies(where, (role, peer), term.spec, outputs, config)
                adapters = config.roles[role].adapters
                for layers in term.spec.layers:
                    match = term.spec.match
                    _check_layers(where, (role, peer), layers, match, outputs, adapters)
                _check_rows(where, term.spec, outputs[role])
                _check_regions(where, (role, peer), term.spec, players, outputs)
                _check_means(where, peer, term.spec.class_means, outputs[peer])
    for role, critic in critics.items():
        with prefix_errors(f"roles.{role}.model: "):
            seen = (outputs[player] for player in critic.between)
            shapes[role] = jax.eval_shape(critic.critic.init, key, *seen, batch)
    params = {role: v.params for role, v in shapes.items()}
    stats = {role: v.stats for role, v in shapes.items()}
    jax.eval_shape(method.loss, params, stats, batch, hparams, key)
    return shapes


def _check_vocabularies(
    where: str,
    owners: tuple[str, str],
    spec: TermSpec,
    outputs: Mapping[str, Outputs],
    config: Config,
) -> None:
    """Refuse a term that compares tokens one by one between different vocabularies."""
    own, peer = (outputs[owner] for owner in owners)
    is_text = all("token_targets" in each.features for each in (own, peer))
    by_token = spec.teachers != "none" and (spec.match == "shape" or spec.sums)
    if owners[0] == owners[1] or not is_text or not by_token:
        return
    sizes = [each.logits.shape[-1] for each in (own, peer)]
    same_tokens = len({config.roles[owner].input for owner in owners}) == 1
    if sizes[0] != sizes[1] or not same_tokens:
        raise UserError(
            f"{where} compares tokens of {owners[0]} and {owners[1]} one by one, but their "
            f"vocabularies differ ({sizes[0]} and {sizes[1]} tokens); use ULD "
            "(universal_logit_distance) or multi_level_transport"
        )


def _check_rows(where: str, spec: TermSpec, own: Outputs) -> None:
    """Refuse a term on features of a language model or a detector that would count padding."""
    if "row_mask" not in own.features:
        return
    if "token_mask" not in own.features:
        if spec.coupled and spec.own_layers:
            raise UserError(
                f"{where} compares all rows of {spec.own_layers[0]!r} with each other, of which "
                "some are padding; use a term on logits, or one that compares row by row, such as "
                "feature_mse"
            )
        return
    for layer in spec.own_layers:
        by_row = own.features[layer].shape[0] == own.logits.shape[0] and not spec.coupled
        if not by_row and not layer.startswith(("token_", "row_")):
            raise UserError(
                f"{where} reads {layer!r}, in which padding and prompts of a language model count; "
                "use a term on logits, or feature_mse on hidden_0, hidden_1, ..."
            )


def _check_regions(
    where: str,
    owners: tuple[str, str],
    spec: TermSpec,
    players: Mapping[str, Player],
    outputs: Mapping[str, Outputs],
) -> None:
    """Refuse a comparison of the regions of two detectors that each draw their own."""
    draw = all("region" in outputs[owner].features for owner in owners)
    first, second = ((players[o].shares or (o,))[0] for o in owners)
    if draw and spec.rows != "anchor" and first != second:
        role, peer = owners
        raise UserError(
            f"{where}: {role} and {peer} draw different regions; set roles.{peer}.regions={role!r}"
        )


def _trace_network(role: str, player: Player, batch: Batch) -> tuple[Variables, Outputs]:
    try:
        shapes = jax.eval_shape(player.model.init, jax.random.key(0), batch)
        apply = functools.partial(player.model.apply, train=False)
        return shapes, jax.eval_shape(apply, shapes, batch)[0]
    except UserError as error:
        raise UserError(f"roles.{role}: {error}") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        size = "x".join(map(str, batch["image"].shape[1:])) + " images" if "image" in batch else ""
        line = str(error).split("\n")[0]
        raise UserError(f"roles.{role}.model cannot take {size or 'the data'}: {line}") from error


def _check_layers(
    where: str,
    owners: tuple[str, str],
    layers: tuple[str, str],
    match: str,
    outputs: Mapping[str, Outputs],
    adapters: Mapping[str, Any],
) -> None:
    shapes = []
    for owner, layer in zip(owners, layers, strict=True):
        features = outputs[owner].features
        if layer not in features:
            known = ", ".join(sorted(features)) or "none"
            raise UserError(f"{where}: {owner} has no layer {layer!r}; it has {known}")
        shapes.append(features[layer].shape[1:])
    own, peer = shapes
    if match == "free" or own == peer or (match == "space" and own[:-1] == peer[:-1]):
        return
    (owner, other), (layer, other_layer) = owners, layers
    text = (
        f"{where}: layer {layer!r} of {owner} is {own} and layer {other_layer!r} of {other} "
        f"is {peer}; "
    )
    for name, adapter in adapters.items():
        level = layer.removeprefix(name) if layer.startswith(name) else "no"
        path = f"roles.{owner}.adapters.{name}"
        if level.isdigit():
            raise UserError(text + _level_remedy(path, adapter, int(level) - 1, own, peer))
        if level == "" and own[:-1] == peer[:-1]:
            raise UserError(f"{text}set {path}.width = {peer[-1]}")
    if match == "space" or own[:-1] != peer[:-1]:
        raise UserError(text + "choose layers of equal height and width (own_layer, peer_layer)")
    raise UserError(
        f"{text}give {owner} an adapter (roles.{owner}.adapters.wide = "
        f"{{'layer': {layer!r}, 'width': {peer[-1]}}}) and set own_layer = 'wide'"
    )


def _level_remedy(
    path: str, adapter: Any, level: int, own: tuple[int, ...], peer: tuple[int, ...]
) -> str:
    """Return the settings with which a level of a fusion or a connector has the shape `peer`."""
    width = f"widths[{level}] = {peer[-1]}"
    if hasattr(adapter, "sizes"):
        return f"set {path}.sizes[{level}] = {peer[:-1] or 1} and .{width}"
    if own[:-1] == peer[:-1]:
        return f"set {path}.{width}"
    size = " x ".join(map(str, peer[:-1]))
    return (
        f"a connector keeps the size: set {path}.layers[{level}] to a map of {size}, and .{width}"
    )


def _check_means(where: str, peer: str, layer: str | None, outputs: Outputs) -> None:
    if layer is not None and len(shape := outputs.features[layer].shape[1:]) != 1:
        raise UserError(
            f"{where}: layer {layer!r} of {peer} is {shape}, but class means need a vector; "
            "choose another layer, such as 'pooled' (own_layer, peer_layer)"
        )
