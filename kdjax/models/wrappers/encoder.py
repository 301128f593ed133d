"""Encoders: networks whose output is a representation of one entry of a batch."""

from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

EMBEDDING = "embedding"  # the feature for critics and probes


def as_encoder(model: Model, *, entry: str = "image") -> Model:
    """Make a model that reads one entry of a batch and adds its logits as the feature "embedding".

    The logits are the representation: build the network with `num_classes` equal to the width of
    the representation.

    Args:
      model: a network for images.
      entry: "image", or "view" for the second view of a pair.

    Raises:
      UserError: (by init or apply) the batch has no such entry.

    >>> import jax, jax.numpy as jnp
    >>> from kdjax import models
    >>> encoder = as_encoder(models.build("mlp", num_classes=5, hidden=(8,)), entry="view")
    >>> batch = {"view": jnp.ones((2, 4, 4, 1))}
    >>> variables = encoder.init(jax.random.key(0), batch)
    >>> encoder.apply(variables, batch, train=False)[0].features["embedding"].shape
    (2, 5)
    """

    def select_entry(batch: Batch) -> Batch:
        if entry not in batch:
            raise UserError(
                f"input is {entry!r}, but the batch has {', '.join(sorted(batch))}; only pairs "
                "have a view"
            )
        return {**batch, "image": batch[entry]}

    def init(key: Array, batch: Batch) -> Variables:
        return model.init(key, select_entry(batch))

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        outputs, stats = model.apply(variables, select_entry(batch), train=train, key=key)
        features = {**outputs.features, EMBEDDING: outputs.logits}
        return Outputs(outputs.logits, features), stats

    return Model(init, apply)
