"""Conversion of Flax modules that read several arrays of token ids to `kdjax.types.Model`."""

from collections.abc import Sequence
from typing import Any

import flax.errors
import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables


def from_tokens(
    module: nn.Module,
    name: str,
    inputs: Sequence[str],
    *,
    optional: Sequence[str] = (),
    max_length: int | None = None,
) -> Model:
    """Make a `Model` of a module whose call is `module(tokens, train=...)`.

    `tokens` maps each of `inputs`, and those of `optional` that the batch has, to its array. The
    module returns `Outputs` and has no stats. A key, if given, is that of dropout. `init` reads
    shapes only.

    Args:
      module: the network.
      name: the network's name in errors.
      inputs: keys of the batch, the first one [..., length].
      optional: further keys.
      max_length: tokens that the network has positions for.

    Raises:
      UserError: (by init or apply) the batch lacks a key, has no whole numbers there, is longer
        than the network's positions, or does not fit the parameters.
    """

    def read(batch: Batch) -> dict[str, Any]:
        for key in inputs:
            if key not in batch:
                raise UserError(f'{name} reads batch["{key}"], but the batch has {sorted(batch)}')
        tokens = {key: batch[key] for key in (*inputs, *optional) if key in batch}
        for key, x in tokens.items():
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise UserError(f'{name}: batch["{key}"] is {x.dtype}; it must hold whole numbers')
        length = tokens[inputs[0]].shape[-1]
        if max_length is not None and length > max_length:
            raise UserError(
                f'{name}: batch["{inputs[0]}"] has {length} tokens, but the network has '
                f"{max_length} positions: cut the text (data.max_length) or set "
                f"max_length={length} of the model"
            )
        return tokens

    def init(key: Array, batch: Batch) -> Variables:
        tokens = {k: jnp.zeros((1, *x.shape[1:]), jnp.int32) for k, x in read(batch).items()}
        return Variables(module.init(key, tokens, train=False).get("params", {}), {})

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        tokens = {k: jnp.asarray(x) for k, x in read(batch).items()}
        rngs = None if key is None else {"dropout": key}
        try:
            outputs = module.apply({"params": variables.params}, tokens, train=train, rngs=rngs)
        except flax.errors.ScopeParamShapeError as error:
            what = str(error).split(" (http")[0].rstrip(".")
            raise UserError(f"{name}: the parameters do not fit: {what}") from error
        except flax.errors.InvalidRngError as error:
            raise UserError(f"{name}: dropout in training needs a key") from error
        if not isinstance(outputs, Outputs):
            raise UserError(f"{name} returns a {type(outputs).__name__}: return Outputs")
        return outputs, variables.stats

    return Model(init, apply)
