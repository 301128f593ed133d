"""Outputs of a frozen network, computed once for each training example and then looked up."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from kdjax.errors import check_layer
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

ROW = "train_id"  # entry of a batch: rows of the training split; present if the cache applies


def with_cache(model: Model, *, size: int, layers: Sequence[str] = ()) -> Model:
    """Read a frozen network's outputs from a cache for training batches that have `ROW`.

    The network computes other batches (evaluation). Its stats become {"network": the model's,
    "outputs": {"logits": [size, classes], layer: [size, ...]}}; `init` fills the cache with
    zeros, `attach_cache` with the computed outputs.

    Args:
      model: the frozen network.
      size: examples of the training split.
      layers: features that are cached besides the logits.

    Raises:
      UserError: (by init) no such layer.
    """

    def init(key: Array, batch: Batch) -> Variables:
        network = model.init(key, batch)
        outputs, _ = jax.eval_shape(lambda v, b: model.apply(v, b, train=False), network, batch)
        for name in layers:
            check_layer("cache", name, outputs.features)
        shapes = {"logits": outputs.logits, **{name: outputs.features[name] for name in layers}}
        empty = {name: jnp.zeros((size, *x.shape[1:]), x.dtype) for name, x in shapes.items()}
        return attach_cache(network, empty)

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        if ROW not in batch:
            network = Variables(variables.params, variables.stats["network"])
            return model.apply(network, batch, train=False, key=key)[0], variables.stats
        cached = variables.stats["outputs"]
        rows = {name: jnp.take(values, batch[ROW], axis=0) for name, values in cached.items()}
        return Outputs(rows.pop("logits"), rows), variables.stats

    return Model(init, apply)


def attach_cache(variables: Variables, outputs: Mapping[str, Array]) -> Variables:
    """Add computed outputs to the stats of a network."""
    return Variables(variables.params, {"network": variables.stats, "outputs": dict(outputs)})
