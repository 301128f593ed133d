"""What is refused before anything is trained: numbers, and shapes that do not fit."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax.data import example_batch
from kdjax.distill.methods import CriticRole, Player
from kdjax.types import Batch, Method, Outputs, Source, UserError, Variables


def check_devices(config: Mapping[str, Any]) -> None:
    """Refuse more devices than there are, and batches that do not divide over them."""
    if config["devices"] > jax.device_count():
        raise UserError(f"devices is {config['devices']}; this machine has {jax.device_count()}")
    devices = config["devices"] or jax.device_count()
    if devices % jax.process_count():
        raise UserError(
            f"devices is {devices}, not a multiple of the {jax.process_count()} processes; each "
            "gives as many, so use a multiple, or 0 for all"
        )
    for key in ("batch_size", "eval_batch_size"):
        if config[key] % devices:
            raise UserError(
                f"{key} is {config[key]}, not a multiple of the {devices} devices; "
                f"use {config[key] // devices * devices or devices}, or set devices"
            )


def check_parts(config: Mapping[str, Any], devices: int) -> None:
    """Refuse batches that cannot be gone through in `accumulate` parts on each device."""
    parts = config["accumulate"]
    if config["batch_size"] % (devices * parts):
        raise UserError(
            f"batch_size is {config['batch_size']}, not a multiple of accumulate x devices = "
            f"{parts} x {devices}; change one of them"
        )
    for role, said in config["roles"].items():
        if parts > 1 and said["pause"]["name"]:
            raise UserError(
                f"roles.{role}.pause is decided on a whole batch, which accumulate = {parts} "
                "never sees; set accumulate = 1"
            )


def check_shapes(
    method: Method,
    table: Mapping[str, Player],
    critics: Mapping[str, CriticRole],
    hparams: Mapping[str, Any],
    source: Source,
    prepare: Callable[[Batch], Batch],
    adapters: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, Variables]:
    """Trace one step without computing it; returns the shapes of all variables by role.

    `adapters` says for each role which features come of which adapter.

    Raises:
      UserError: an image that a network cannot take; two layers of a feature term that do not
        exist or differ in width.
    """
    batch = jax.eval_shape(prepare, example_batch(source))
    key = jax.random.key(0)
    shapes, outputs = {}, {}
    for role, player in table.items():
        try:
            shapes[role] = jax.eval_shape(player.model.init, key, batch)
            apply = functools.partial(player.model.apply, train=False)
            outputs[role], _ = jax.eval_shape(apply, shapes[role], batch)
        except UserError as error:
            raise UserError(f"roles.{role}: {error}") from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            size = "x".join(map(str, source.spec.shape))
            line = str(error).split("\n")[0]
            raise UserError(f"roles.{role}.model cannot take {size} images: {line}") from error
    for role, player in table.items():
        for name, term in player.terms.items():
            where = f"roles.{role}.terms.{name}"
            for peer in term.toward or (role,):
                if term.spec.class_means is not None and table[peer].trains:
                    raise UserError(
                        f"{where}: class means are of a frozen network, but {peer} trains; give "
                        f"roles.{peer} no terms and a checkpoint or from_variant"
                    )
                for layers in term.spec.layers:
                    match = term.spec.match
                    _check_layers(where, (role, peer), layers, match, outputs, adapters[role])
                _check_means(where, peer, term.spec.class_means, outputs[peer])
    for role, (critic, between, *_) in critics.items():
        try:
            seen = (outputs[player] for player in between)
            shapes[role] = jax.eval_shape(critic.init, key, *seen, batch)
        except UserError as error:
            raise UserError(f"roles.{role}.model: {error}") from error
    params = {role: v.params for role, v in shapes.items()}
    stats = {role: v.stats for role, v in shapes.items()}
    jax.eval_shape(method.loss, params, stats, batch, hparams, key)
    return shapes


def _check_layers(
    where: str,
    owners: tuple[str, str],
    layers: tuple[str, str],
    match: str,
    outputs: Mapping[str, Outputs],
    adapters: Mapping[str, Sequence[str]],
) -> None:
    found = []
    for owner, layer in zip(owners, layers, strict=True):
        features = outputs[owner].features
        if layer not in features:
            known = ", ".join(sorted(features)) or "none"
            raise UserError(f"{where}: {owner} has no layer {layer!r}; it has {known}")
        found.append(features[layer].shape[1:])
    one = [shape[:-1] for shape in found] if match == "space" else found
    if match == "free" or one[0] == one[1]:
        return
    (own, peer), (a, b) = owners, layers
    wants = f"{where}: layer {a!r} of {own} is {found[0]} and layer {b!r} of {peer} is {found[1]}; "
    adapter = next((name for name, made in adapters.items() if a in made), None)
    if adapter is not None and (a != adapter or found[0][:-1] == found[1][:-1]):
        raise UserError(wants + _right(f"roles.{own}.adapters.{adapter}", a, adapter, found[1]))
    if match == "space" or found[0][:-1] != found[1][:-1]:
        raise UserError(wants + "choose layers of one height and width (own_layer, peer_layer)")
    raise UserError(
        f"{wants}give {own} an adapter (roles.{own}.adapters.wide = "
        f"{{'layer': {a!r}, 'width': {found[1][-1]}}}) and set own_layer = 'wide'"
    )


def _right(where: str, layer: str, adapter: str, shape: tuple[int, ...]) -> str:
    """What an adapter should make instead: a layer of this shape."""
    *size, width = shape
    if layer == adapter:
        return f"set {where}.width = {width}"
    level = int(layer.removeprefix(adapter)) - 1  # a fusion counts its levels from 1
    return f"set {where}.sizes[{level}] = {tuple(size) or 1} and .widths[{level}] = {width}"


def _check_means(where: str, peer: str, layer: str | None, outputs: Outputs) -> None:
    if layer is not None and len(shape := outputs.features[layer].shape[1:]) != 1:
        raise UserError(
            f"{where}: layer {layer!r} of {peer} is {shape}, but class means are of a vector; "
            "choose one, as 'pooled' (own_layer, peer_layer)"
        )
