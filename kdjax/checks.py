"""What is refused before anything is trained: numbers, and shapes that do not fit."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kdjax.methods import Player
from kdjax.types import Batch, Method, Source, UserError, Variables


def check_numbers(config: Mapping[str, Any]) -> None:
    """Refuse counts out of range, and batches that do not divide over the devices."""
    for key in ("num_steps", "batch_size", "eval_batch_size", "keep_checkpoints", "ece_bins"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be >= 1")
    for key in ("log_every", "eval_every", "checkpoint_every", "grad_norm_every", "devices"):
        if config[key] < 0:
            raise UserError(f"{key} is {config[key]}; it must be >= 0")
    if config["data"]["seed"] is not None and config["data"]["seed"] < 0:
        raise UserError(f"data.seed is {config['data']['seed']}; it must be >= 0")
    if config["parallel"] not in ("pmap", "mesh"):
        raise UserError(f"parallel is {config['parallel']!r}; it must be pmap or mesh")
    if config["devices"] > jax.device_count():
        raise UserError(f"devices is {config['devices']}; this machine has {jax.device_count()}")
    devices = config["devices"] or jax.device_count()
    for key in ("batch_size", "eval_batch_size"):
        if config[key] % devices:
            raise UserError(
                f"{key} is {config[key]}, not a multiple of the {devices} devices; "
                f"use {config[key] // devices * devices or devices}, or set devices"
            )


def example_batch(source: Source, size: int = 2) -> dict[str, np.ndarray]:
    """A raw batch of zeros, for shapes."""
    dtype = np.uint8 if source.spec.scale == 255 else np.float32
    return {
        "image": np.zeros((size, *source.spec.shape), dtype),
        "label": np.zeros(size, np.int32),
        "id": np.zeros(size, np.int32),
        "mask": np.ones(size, np.float32),
    }


def check_shapes(
    method: Method,
    table: Mapping[str, Player],
    hparams: Mapping[str, Any],
    source: Source,
    prepare: Callable[[Batch], Batch],
) -> dict[str, Variables]:
    """Trace one step without computing it; returns the shapes of all variables by role.

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
            for peer in term.toward:
                if term.definition.class_means is not None and table[peer].terms:
                    raise UserError(
                        f"{where}: class means are of a frozen network, but {peer} trains; give "
                        f"roles.{peer} no terms and a checkpoint or from_variant"
                    )
                for layers in term.definition.layers:
                    _check_layers(where, (role, peer), layers, term.definition.match, outputs)
    params = {role: v.params for role, v in shapes.items()}
    stats = {role: v.stats for role, v in shapes.items()}
    jax.eval_shape(method.loss, params, stats, batch, hparams, key)
    return shapes


def _check_layers(
    where: str,
    owners: tuple[str, str],
    layers: tuple[str, str],
    match: str,
    outputs: Mapping[str, Any],
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
    if match == "space" or found[0][:-1] != found[1][:-1]:
        raise UserError(wants + "choose layers of one height and width (own_layer, peer_layer)")
    raise UserError(
        f"{wants}give {own} an adapter (roles.{own}.adapter.layer = {a!r}, .width = "
        f"{found[1][-1]}) and use {a + '_adapted'!r}"
    )
