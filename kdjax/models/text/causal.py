"""Parts that decoders of text share: causal masks, and the outputs of a stack of layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.text.attention import key_mask, token_logits
from kdjax.types import Array, Outputs


def read_tokens(tokens: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Return ids [rows, length], which of them are real, and positions that count real tokens.

    Args:
      tokens: "input_ids" and "attention_mask" int32 [batch, (choices,) length]; with "segment_ids"
        of that shape the positions begin anew where the segment changes.
    """
    ids = tokens["input_ids"]
    ids = ids.reshape(-1, ids.shape[-1])
    real = tokens["attention_mask"].reshape(ids.shape) > 0
    positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
    if "segment_ids" in tokens:
        segments = tokens["segment_ids"].reshape(ids.shape)
        begins = jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0
        positions -= jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
    return ids, real, positions


def causal_masks(
    real: Array, positions: Array, window: int | None, segments: Array | None = None
) -> dict[str, Array]:
    """Return the keys that each kind of layer sees, bool [batch, 1, targets, sources].

    A "global" layer sees all earlier tokens, a "local" one those less than `window` positions away,
    both in the token's own segment.

    Args:
      real: bool [batch, length]; False of padding.
      positions: int32 [batch, length], counting real tokens.
      window: None if there is no local layer.
      segments: int32 [batch, (choices,) length], equal for tokens of one text. None: one text.
    """
    length = real.shape[1]
    earlier = jnp.tril(jnp.ones((length, length), bool)) & key_mask(real)
    if segments is not None:
        segments = segments.reshape(real.shape)
        earlier &= (segments[:, :, None] == segments[:, None, :])[:, None]
    if window is None:
        return {"global": earlier}
    near = positions[:, :, None] - positions[:, None, :] < window
    return {"global": earlier, "local": earlier & near[:, None]}


def decoder_outputs(
    tokens: Mapping[str, Array], hidden: Sequence[Array], table: Array, dtype: Any
) -> Outputs:
    """Return logits of tokens, the hidden states and "pooled", the state at the last real token.

    Args:
      tokens: "input_ids" [batch, (choices,) length] and "attention_mask"; with "logit_positions"
        [batch, (choices,) count] the logits are at these tokens, and "pooled" is at the first.
      hidden: [rows, length, width] of each layer, the last one normalised.
      table: [vocabulary, width] of the head.
      dtype: of the computation.
    """
    shape, x = tokens["input_ids"].shape, hidden[-1]
    real = tokens["attention_mask"].reshape(-1, shape[-1]) > 0
    logit_positions = tokens.get("logit_positions")
    if logit_positions is None:
        last = jnp.max(jnp.where(real, jnp.arange(shape[-1]), 0), axis=1)
        pooled = _at(x, last[:, None])[:, 0]
        picked, logits_shape = x, shape
    else:
        picked = _at(x, logit_positions.reshape(x.shape[0], -1))
        pooled, logits_shape = picked[:, 0], logit_positions.shape
    logits, width = token_logits(picked, table, dtype), x.shape[-1]
    features = {f"hidden_{i}": h.reshape(*shape, width) for i, h in enumerate(hidden)}
    features["pooled"] = pooled.reshape(*shape[:-1], width).astype(jnp.float32)
    return Outputs(logits.reshape(*logits_shape, table.shape[0]), features)


def _at(x: Array, positions: Array) -> Array:
    """Pick [batch, count, width] from [batch, length, width]."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)
