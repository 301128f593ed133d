"""Less memory for more arithmetic: what the backward pass needs is computed again."""

from typing import Any

import jax

from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

__all__ = ["with_remat"]

# Products are dear and their results few; sums over devices would travel twice. The convolutions of
# `conv.py` have a gradient of their own, by which a policy knows them.
_KEPT = ("conv_general_dilated", "dot_general", "custom_vjp_call")


def with_remat(model: Model) -> Model:
    """The same network, whose backward pass finds results of products only.

    Norms, activations, softmaxes and dropout between them are computed again. The numbers are the
    same up to the rounding of another fusion; in evaluation nothing changes.
    """

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        if not train:
            return model.apply(variables, batch, train=False, key=key)
        again = jax.checkpoint(
            lambda v, b, k: model.apply(v, b, train=True, key=k), policy=_is_kept
        )
        return again(variables, dict(batch), key)

    return Model(model.init, apply)


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in _KEPT or primitive.name.startswith(("psum", "all_gather"))
