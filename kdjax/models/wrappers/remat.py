"""Rematerialisation: less memory, because the backward pass computes activations again."""

from typing import Any

import jax

from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

# Products are expensive and their results small; sums over devices would be communicated twice. The
# convolutions of `conv.py` appear as custom_vjp calls.
_SAVED = ("conv_general_dilated", "dot_general", "custom_vjp_call")


def with_remat(model: Model) -> Model:
    """Make a model that stores only the results of products for the backward pass.

    Norms, activations, softmaxes and dropout between them are computed again. Results are the same
    up to rounding, as XLA fuses differently; evaluation does not change.
    """

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        if not train:
            return model.apply(variables, batch, train=False, key=key)
        rematerialised = jax.checkpoint(
            lambda v, b, k: model.apply(v, b, train=True, key=k), policy=_is_saved
        )
        return rematerialised(variables, dict(batch), key)

    return Model(model.init, apply)


def _is_saved(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in _SAVED or primitive.name.startswith(("psum", "all_gather"))
