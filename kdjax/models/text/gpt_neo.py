"""GPT-Neo (Black et al. 2021): a decoder whose layers look at all or at the last few tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from kdjax.models.layers.layers import compute_dtype
from kdjax.models.text.attention import (
    ACTIVATIONS,
    Attention,
    Dropout,
    check_rate,
    check_sizes,
    key_mask,
    per_token,
    token_logits,
)
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs, UserError

__all__ = ["GptNeo", "gpt_neo"]

_INIT = nn.initializers.normal(0.02)


class Sizes(NamedTuple):
    """What all layers of a GPT-Neo are told alike; see `gpt_neo`."""

    width: int
    num_heads: int
    ffn_width: int
    activation: str
    epsilon: float
    dropout: float
    attention_dropout: float
    dtype: Any


class DecoderLayer(nn.Module):
    """Attention to earlier tokens and two linear maps, each on normalised input and added to it."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """Map [batch, length, width] to the same shape."""
        sizes = self.sizes
        attention = Attention(
            sizes.num_heads,
            sizes.width // sizes.num_heads,
            scale=1.0,
            use_bias=False,
            dropout=sizes.attention_dropout,
            dtype=sizes.dtype,
            name="attention",
        )
        thin = Dropout(sizes.dropout)
        y = attention(_norm(sizes, "attention_norm")(x), mask=mask, train=train)
        x += thin(y, train)
        y = _norm(sizes, "ffn_norm")(x)
        wide = nn.Dense(sizes.ffn_width, kernel_init=_INIT, dtype=sizes.dtype, name="ffn_in")
        y = ACTIVATIONS[sizes.activation](per_token(wide, y))
        out = nn.Dense(sizes.width, kernel_init=_INIT, dtype=sizes.dtype, name="ffn_out")
        return x + thin(per_token(out, y), train)


class GptNeo(nn.Module):
    """Embeddings of tokens and positions, layers, a norm and the embedding as head."""

    sizes: Sizes
    vocab_size: int
    max_length: int
    layers: tuple[str, ...]
    window: int
    embedding_dropout: float

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [..., length] to logits and the features of `gpt_neo`."""
        sizes, shape = self.sizes, tokens["input_ids"].shape
        ids = tokens["input_ids"].reshape(-1, shape[-1])
        real = tokens["attention_mask"].reshape(ids.shape) > 0
        positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)

        def embed(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, sizes.width, embedding_init=_INIT, dtype=sizes.dtype, name=name)

        word = embed(self.vocab_size, "word")
        x = word(ids) + embed(self.max_length, "position")(positions)
        x = Dropout(self.embedding_dropout)(x, train)
        hidden, masks = [x], _masks(real, positions, self.window)
        for index, kind in enumerate(self.layers):
            x = DecoderLayer(sizes, name=f"layer{index}")(x, masks[kind], train)
            hidden.append(x)
        x = hidden[-1] = _norm(sizes, "norm")(x)

        index = jnp.arange(shape[-1])
        asked = tokens.get("logit_positions")
        if asked is None:
            pooled = _at(x, jnp.max(jnp.where(real, index, 0), axis=1)[:, None])[:, 0]
            picked, asked_shape = x, shape
        else:
            picked = _at(x, asked.reshape(x.shape[0], -1))
            pooled, asked_shape = picked[:, 0], asked.shape
        logits = token_logits(picked, word.embedding, sizes.dtype)
        features = {f"hidden_{i}": h.reshape(*shape, sizes.width) for i, h in enumerate(hidden)}
        features["pooled"] = pooled.reshape(*shape[:-1], sizes.width).astype(jnp.float32)
        return Outputs(logits.reshape(*asked_shape, self.vocab_size), features)


def gpt_neo(
    *,
    vocab_size: int = 50257,
    num_layers: int = 4,
    width: int = 256,
    num_heads: int = 4,
    ffn_width: int | None = None,
    max_length: int = 2048,
    layers: Sequence[str] | None = None,
    window: int = 256,
    activation: str = "gelu_new",
    epsilon: float = 1e-5,
    dropout: float = 0.1,
    attention_dropout: float | None = None,
    embedding_dropout: float | None = None,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Make a GPT-Neo that gives logits of tokens.

    It reads "input_ids" and "attention_mask", int32 [batch, length] or [batch, choices, length].
    Only real tokens are counted: padding anywhere neither takes a position nor widens a window.
    With "logit_positions" [batch, (choices,) count] logits are those at these tokens only. Scores
    are not scaled. Features: "hidden_0" (the embeddings), ..., the last one after the last norm,
    and "pooled" [batch, (choices,) width], that state at the last real token, or at the first of
    the asked ones.

    Args:
      vocab_size: ids.
      num_layers: layers.
      width: of the hidden states.
      num_heads: of attention; they divide the width.
      ffn_width: between the two maps of a layer; four times the width if not given.
      max_length: positions.
      layers: "global" (all earlier tokens) or "local" by layer; alternating if not given.
      window: tokens that a local layer sees, itself among them.
      activation: "gelu_new" (by tanh), "gelu" (exact) or "relu".
      epsilon: of the layer norms.
      dropout: of the layers and, where not given, of the next two.
      attention_dropout: of the attention's weights.
      embedding_dropout: of the embeddings.
      dtype: of the computation; parameters, softmax and logits stay float32.
      axis_name: accepted as by every network; there is nothing to synchronise.

    Raises:
      UserError: an option with an impossible value.
    """
    del axis_name
    ffn_width = 4 * width if ffn_width is None else ffn_width
    check_sizes(
        "gpt_neo",
        vocab_size=vocab_size,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        ffn_width=ffn_width,
        max_length=max_length,
        window=window,
    )
    kinds = tuple(layers or (("global", "local")[i % 2] for i in range(num_layers)))
    if len(kinds) != num_layers or set(kinds) - {"global", "local"}:
        raise UserError(
            f'gpt_neo: layers is {kinds}: use "global" or "local" for each of {num_layers} layers'
        )
    if width % num_heads:
        raise UserError(f"gpt_neo: num_heads is {num_heads}: it must divide the width, {width}")
    if activation not in ACTIVATIONS:
        raise UserError(f"gpt_neo: activation is {activation!r}: use {', '.join(ACTIVATIONS)}")
    of_attention = dropout if attention_dropout is None else attention_dropout
    first = dropout if embedding_dropout is None else embedding_dropout
    check_rate("gpt_neo", dropout=dropout, attention_dropout=of_attention, embedding_dropout=first)
    sizes = Sizes(
        width, num_heads, ffn_width, activation, epsilon, dropout, of_attention,
        compute_dtype(dtype),
    )  # fmt: skip
    module = GptNeo(sizes, vocab_size, max_length, kinds, window, first)
    return from_tokens(
        module,
        "gpt_neo",
        ("input_ids", "attention_mask"),
        optional=("logit_positions",),
        max_length=max_length,
    )


def _masks(real: Array, positions: Array, window: int) -> dict[str, Array]:
    """Which keys each kind of layer sees, bool [batch, 1, targets, sources]."""
    length = real.shape[1]
    earlier = jnp.tril(jnp.ones((length, length), bool)) & key_mask(real)
    near = positions[:, :, None] - positions[:, None, :] < window
    return {"global": earlier, "local": earlier & near[:, None]}


def _at(x: Array, positions: Array) -> Array:
    """Pick [batch, count, width] from [batch, length, width]."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)


def _norm(sizes: Sizes, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(sizes.epsilon, dtype=sizes.dtype, use_fast_variance=False, name=name)
