"""From the `model` of a role to a network for the data."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from kdjax import models
from kdjax.experiment.build.plan import TaskData
from kdjax.types import Model, UserError

PRECISIONS = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
}  # of the computation; params stay float32


def make_network(
    role: str, config: Mapping[str, Any], data: TaskData, axis_name: str | None
) -> Model:
    """Build the network of one role, without what terms add to it."""
    said = config["roles"][role]
    if not said["model"].get("name"):
        raise UserError(f"roles.{role}.model.name is not set; there are {_list(models.names())}")
    try:
        data.task.check_network(said["model"]["name"])
    except UserError as error:
        raise UserError(f"roles.{role}.model.name {error}") from error
    if said["cache"] and not data.task.rows_are_examples:
        raise UserError(f"roles.{role}.cache is set, but a detector draws new regions every time")
    try:
        network, spec = data.task.describe_network(said["model"], data.source.spec)
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
    try:
        return data.task.read_entry(model, said["input"])
    except UserError as error:
        raise UserError(f"roles.{role}.{error}") from error


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
