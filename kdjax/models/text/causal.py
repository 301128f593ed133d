"""Parts that text decoders share: causal masks, and the outputs of a stack of layers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.text import key_cache
from kdjax.models.text.attention import key_mask, token_logits
from kdjax.types import Array, Outputs

# features: the last states of the tokens that have logits, [batch, (choices,) count, width], and
# the output matrix, [vocabulary, width], which has no batch axis
STATES = "token_states"
TABLE = "token_table"


class Tokens(NamedTuple):
    """The tokens of a batch as a decoder reads them.

    `ids` and `positions` int32 [rows, targets]; positions count real tokens. `masks` are those of
    `causal_masks`.
    """

    ids: Array
    positions: Array
    masks: Mapping[str, Array]


def read_tokens(module: nn.Module, tokens: Mapping[str, Array], window: int | None) -> Tokens:
    """Return the tokens of a batch, with positions and masks.

    With the collection "cache" (see `key_cache`) the targets follow those of earlier calls, and
    "attention_mask" spans the tokens of all calls, later ones included.

    Args:
      module: the decoder.
      tokens: "input_ids" int32 [batch, (choices,) targets], and "attention_mask" int32, of the same
        shape without a cache; with "segment_ids" of the mask's shape the positions restart at 0
        where the segment changes.
      window: None if there is no local layer.
    """
    ids = tokens["input_ids"]
    ids = ids.reshape(-1, ids.shape[-1])
    real = tokens["attention_mask"].reshape(ids.shape[0], -1) > 0
    positions, segments = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0), None
    if "segment_ids" in tokens:
        segments = tokens["segment_ids"].reshape(real.shape)
        begins = jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0
        positions -= jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
    targets = jnp.arange(ids.shape[1])
    if key_cache.is_stored(module):
        targets = targets + key_cache.advance(module, ids.shape[1])
    masks = causal_masks(real, positions, targets, window, segments)
    return Tokens(ids, jnp.take(positions, targets, axis=1), masks)


def causal_masks(
    real: Array,
    positions: Array,
    targets: Array,
    window: int | None,
    segments: Array | None = None,
) -> dict[str, Array]:
    """Return the mask of each kind of layer, bool [batch, 1, targets, sources].

    A "global" layer attends to the token and all earlier ones, a "local" layer to those of them
    that are less than `window` positions away; both only within the token's segment.

    Args:
      real: bool [batch, sources]; False for padding.
      positions: int32 [batch, sources], counting real tokens.
      targets: int32 [targets], indices of the targets among the sources.
      window: None if there is no local layer.
      segments: int32 [batch, sources], equal for tokens of one text. None: one text.
    """
    earlier = (jnp.arange(real.shape[1]) <= targets[:, None]) & key_mask(real)
    if segments is not None:
        own_segments = jnp.take(segments, targets, axis=1)
        earlier &= (own_segments[:, :, None] == segments[:, None, :])[:, None]
    if window is None:
        return {"global": earlier}
    own = jnp.take(positions, targets, axis=1)
    near = own[:, :, None] - positions[:, None, :] < window
    return {"global": earlier, "local": earlier & near[:, None]}


def decoder_outputs(
    tokens: Mapping[str, Array], hidden: Sequence[Array], table: Array, dtype: Any
) -> Outputs:
    """Return logits of tokens, the hidden states and "pooled", the state at the last real token.

    The features "token_states" and "token_table" are the two factors of the logits.

    Args:
      tokens: "input_ids" [batch, (choices,) length] and "attention_mask"; with "logit_positions"
        [batch, (choices,) count] only the logits at these positions are computed, and "pooled" is
        the state at the first of them.
      hidden: [rows, length, width] of each layer, the last one normalised.
      table: [vocabulary, width] of the head.
      dtype: of the computation.
    """
    shape, x = tokens["input_ids"].shape, hidden[-1]
    logit_positions = tokens.get("logit_positions")
    if logit_positions is None:
        # with a cache the mask also spans later tokens
        real = tokens["attention_mask"].reshape(x.shape[0], -1)[:, : shape[-1]] > 0
        last = jnp.max(jnp.where(real, jnp.arange(shape[-1]), 0), axis=1)
        pooled = _take_positions(x, last[:, None])[:, 0]
        states, logits_shape = x, shape
    else:
        states = _take_positions(x, logit_positions.reshape(x.shape[0], -1))
        pooled, logits_shape = states[:, 0], logit_positions.shape
    logits, width = token_logits(states, table, dtype), x.shape[-1]
    features = {f"hidden_{i}": h.reshape(*shape, width) for i, h in enumerate(hidden)}
    features["pooled"] = pooled.reshape(*shape[:-1], width).astype(jnp.float32)
    features[STATES], features[TABLE] = states.reshape(*logits_shape, width), table
    return Outputs(logits.reshape(*logits_shape, table.shape[0]), features)


def _take_positions(x: Array, positions: Array) -> Array:
    """Pick [batch, count, width] from [batch, length, width]."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)
