"""From the `model` of a role to a network that fits the data."""

import jax.numpy as jnp

from kdjax import models
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config.schema import Config
from kdjax.types import Model

# dtype of the computation; params are float32
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_network(role: str, config: Config, data: TaskData, axis_name: str | None) -> Model:
    """Build the network of a role, without the additions of its terms."""
    table, where = config.roles[role], f"roles.{role}"
    name = table.model.name
    if not name:
        known = ", ".join(sorted(models.names()))
        raise UserError(f"{where}.model.name is not set; there are {known}")
    with prefix_errors(f"{where}.model.name "):
        data.task.check_network(name)
    if table.cache and not data.task.rows_are_examples:
        raise UserError(
            f"{where}.cache is set, but a detector samples its regions each time, and a language "
            "model has a row for each token; remove it"
        )
    with prefix_errors(f"{where}.model: "):
        seen = data.read_by(table.input).source.spec
        network, spec = data.task.describe_network(table.model.model_dump(), seen)
        options = {key: value for key, value in network.items() if key != "name"}
        derived = sorted({"num_classes", "dtype", "axis_name"} & set(options))
        if derived:
            raise UserError(
                f"{derived[0]} is set by the data, `precision` and the devices; remove it"
            )
        model = data.task.build_network(
            name,
            num_classes=spec.num_classes,
            dtype=PRECISIONS[config.precision],
            axis_name=axis_name,
            **options,
        )
    with prefix_errors(f"{where}."):
        return data.task.read_entry(model, table.input)
