"""A second view of each image, sent through the same network."""

import jax

from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

VIEW = "view"  # the entry of a batch


def with_second_view(model: Model, *, name: str) -> Model:
    """Add a network's logits of batch["view"] as the feature `name`.

    Batch norm treats the views as two batches, the image first. Without a second view, as in
    evaluation, the feature holds the logits of the image.

    Args:
      model: a network for images.
      name: of the new feature.
    """

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        outputs, stats = model.apply(variables, batch, train=train, key=key)
        view_logits = outputs.logits
        if VIEW in batch:
            second = {**batch, "image": batch[VIEW]}
            view_key = None if key is None else jax.random.fold_in(key, 1)
            after_first = Variables(variables.params, stats)
            view, stats = model.apply(after_first, second, train=train, key=view_key)
            view_logits = view.logits
        return Outputs(outputs.logits, {**outputs.features, name: view_logits}), stats

    return Model(model.init, apply)
