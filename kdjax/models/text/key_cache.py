"""Keys and values of earlier tokens, stored in the collection "cache" of a decoder's variables.

A decoder that is applied with this collection (at first empty) appends the tokens of each call to
those of earlier calls. The mask of a call spans the tokens of all calls, later ones included.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.layers.from_linen import CACHE
from kdjax.types import Array


def is_stored(module: nn.Module) -> bool:
    """Return whether a module is applied with the collection."""
    return module.is_mutable_collection(CACHE) and not module.is_initializing()


def advance(module: nn.Module, count: int) -> Array:
    """Return the number of tokens of a module's earlier calls, and add `count` to it."""
    size = module.variable(CACHE, "size", jnp.zeros, (), jnp.int32)
    start, size.value = size.value, size.value + count
    return start


def append(module: nn.Module, key: Array, value: Array, sources: int) -> tuple[Array, Array]:
    """Store keys and values after those of earlier calls, and return all of them.

    Args:
      module: the attention, whose collection holds the keys and values.
      key: [batch, targets, heads, width].
      value: like `key`.
      sources: tokens of all calls together.

    Returns:
      Two arrays [batch, sources, heads, width], 0 at the tokens of later calls.
    """
    start, both = advance(module, key.shape[1]), []
    for name, heads in (("keys", key), ("values", value)):
        shape = (heads.shape[0], sources, *heads.shape[2:])
        stored = module.variable(CACHE, name, jnp.zeros, shape, heads.dtype)
        stored.value = jax.lax.dynamic_update_slice_in_dim(stored.value, heads, start, axis=1)
        both.append(stored.value)
    return both[0], both[1]
