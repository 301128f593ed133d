"""Class means as statistics of a frozen network, stored with its variables."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax.errors import check_layer
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables


def with_class_means(model: Model, *, layer: str, name: str, num_classes: int) -> Model:
    """Add a network's class means, [classes, width], as the feature `name`.

    Its stats become {"network": the model's, "class_means": array}; `init` fills them with zeros,
    `attach_class_means` with measured ones.

    Args:
      model: the frozen network.
      layer: the layer whose means are added; a feature [batch, width].
      name: of the new feature.
      num_classes: rows.

    Raises:
      UserError: (by init) no such layer.
    """

    def init(key: Array, batch: Batch) -> Variables:
        network = model.init(key, batch)
        outputs, _ = jax.eval_shape(lambda v, b: model.apply(v, b, train=False), network, batch)
        check_layer("class means", layer, outputs.features)
        width = outputs.features[layer].shape[-1]
        return attach_class_means(network, jnp.zeros((num_classes, width), jnp.float32))

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        network = Variables(variables.params, variables.stats["network"])
        outputs, stats = model.apply(network, batch, train=train, key=key)
        means = variables.stats["class_means"]
        after = variables.stats if not train else {"network": stats, "class_means": means}
        return Outputs(outputs.logits, {**outputs.features, name: means}), after

    return Model(init, apply)


def attach_class_means(variables: Variables, means: Array) -> Variables:
    """Add class means to the stats of a network."""
    return Variables(variables.params, {"network": variables.stats, "class_means": means})


def strip_wrappers(variables: Variables) -> Variables:
    """Return a network's variables without class means, cached outputs and adapters."""
    params, stats = variables
    if isinstance(params, Mapping) and set(params) == {"network", "adapters"}:
        params = params["network"]
    while isinstance(stats, Mapping) and "network" in stats:
        stats = stats["network"]
    return Variables(params, stats)
