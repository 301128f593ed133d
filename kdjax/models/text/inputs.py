"""Conversion of Flax modules that read several arrays of token ids to `kdjax.types.Model`."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError, check_entries
from kdjax.models.layers.from_linen import from_reader
from kdjax.types import Batch, Model


def from_tokens(
    module: nn.Module,
    name: str,
    inputs: Sequence[str],
    *,
    optional: Sequence[str] = (),
    max_length: int | None = None,
) -> Model:
    """Make a `Model` of a module whose call is `module(tokens, train=...)`.

    `tokens` maps each of `inputs`, and those of `optional` that the batch has, to its array.

    Args:
      module: the network.
      name: the network's name in errors.
      inputs: required entries of the batch; the first one is [..., length].
      optional: entries that the batch may have.
      max_length: the network's number of positions; None is no limit.

    Raises:
      UserError: (by init or apply) the batch lacks an entry, has one that is not of integers, has
        more tokens than the network has positions, or does not fit the parameters.
    """

    def read(batch: Batch) -> dict[str, Any]:
        check_entries(name, inputs, batch)
        tokens = {key: batch[key] for key in (*inputs, *optional) if key in batch}
        for key, x in tokens.items():
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise UserError(f'{name}: batch["{key}"] is {x.dtype}; it must hold whole numbers')
        longest = max(inputs, key=lambda key: tokens[key].shape[-1])
        length = tokens[longest].shape[-1]
        if max_length is not None and length > max_length:
            raise UserError(
                f'{name}: batch["{longest}"] has {length} tokens, but the network has '
                f"{max_length} positions: cut the text (data.max_length) or set "
                f"max_length={length} of the model"
            )
        return tokens

    return from_reader(module, name, read)
