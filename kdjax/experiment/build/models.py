"""From a role's `model` to a network for the data: classifier, encoder of pairs or detector."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from kdjax import models
from kdjax.data import DETECTION
from kdjax.types import Model, Source, Spec, UserError

PRECISIONS = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
}  # of the computation; params stay float32


def make_network(
    role: str, config: Mapping[str, Any], source: Source, axis_name: str | None
) -> Model:
    """Build the network of one role, without what terms add to it."""
    said = config["roles"][role]
    if not said["model"].get("name"):
        raise UserError(f"roles.{role}.model.name is not set; there are {_list(models.names())}")
    _check_boxes(role, said, source)
    if config["precision"] not in PRECISIONS:
        raise UserError(f"precision is {config['precision']!r}; there are {_list(PRECISIONS)}")
    try:
        network, spec = described(said["model"], source.spec)
        options = {k: v for k, v in network.items() if k != "name"}
        ours = sorted({"num_classes", "dtype", "axis_name"} & set(options))
        if ours:
            raise UserError(
                f"{ours[0]} follows from the data, `precision` and the devices; remove it"
            )
        model = models.build(
            said["model"]["name"],
            num_classes=spec.num_classes,
            dtype=PRECISIONS[config["precision"]],
            axis_name=axis_name,
            **options,
        )
    except UserError as error:
        raise UserError(f"roles.{role}.model: {error}") from error
    if spec.latents:
        return models.as_encoder(model, entry=said["input"])
    if said["input"] != "image":
        raise UserError(f"roles.{role}.input is {said['input']!r}; only pairs have more than image")
    return model


def described(network: Mapping[str, Any], spec: Spec) -> tuple[dict[str, Any], Spec]:
    """What builds a network for this data: its table, and the data's spec with as many outputs.

    A network of tokens gets the size of the vocabulary if it says none; an encoder of pairs has as
    many outputs as its table's `embedding` says.
    """
    given = dict(network)
    if spec.latents:
        width = given.pop("embedding", None)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise UserError(
                f"embedding is {width!r}; an encoder of pairs needs the width of its "
                "representation, a whole number >= 1"
            )
        return given, spec._replace(num_classes=width)
    if not spec.vocab_size:
        return given, spec
    size = given.setdefault("vocab_size", spec.vocab_size)
    if size < spec.vocab_size:
        raise UserError(
            f"vocab_size is {size}, but the tokenizer has {spec.vocab_size} words; use that or more"
        )
    return given, spec


def _check_boxes(role: str, said: Mapping[str, Any], source: Source) -> None:
    """Refuse a classifier where boxes are to be found, and a detector where there are none."""
    finds, name = said["model"]["name"] == "faster_rcnn", said["model"]["name"]
    if (source.spec.task == DETECTION) != finds:
        has, use = ("no boxes", "a classifier") if finds else ("boxes", "faster_rcnn")
        raise UserError(f"roles.{role}.model.name is {name!r}, but the data has {has}; use {use}")
    if finds and said["cache"]:
        raise UserError(f"roles.{role}.cache is set, but a detector draws new regions every time")


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
