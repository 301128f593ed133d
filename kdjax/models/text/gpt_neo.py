"""GPT-Neo (Black et al. 2021): a decoder whose layers see all earlier tokens or the last few."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.text.attention import (
    Attention,
    Dropout,
    complete,
    embed,
    feed_forward,
    key_mask,
    layer_norm,
    token_logits,
)
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs

_INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GptNeoOptions:
    """Options of `gpt_neo`. None stands for the value in brackets."""

    vocab_size: int = 50257
    num_layers: int = 4
    width: int = 256  # of the hidden states
    num_heads: int = 4  # divides the width
    ffn_width: Any = None  # between the two linear maps of a layer [4 * width]
    max_length: int = 2048  # positions
    layers: Any = None  # "global" (all earlier tokens) or "local", by layer [alternating]
    window: int = 256  # tokens that a local layer attends to, the current one included
    activation: str = "gelu_new"  # "gelu_new" (by tanh), "gelu" (exact) or "relu"
    epsilon: float = 1e-5  # of the layer norms
    dropout: float = 0.1  # of the layers
    attention_dropout: Any = None  # of the attention weights [dropout]
    embedding_dropout: Any = None  # of the embeddings [dropout]
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # accepted as by every network; there is nothing to synchronise

    def complete(self) -> "GptNeoOptions":
        """Return the options without None (`dtype` aside), all checked; raises UserError."""
        rates = {"attention_dropout": self.dropout, "embedding_dropout": self.dropout}
        options = complete("gpt_neo", self, ffn_width=4 * self.width, **rates)
        alternating = (("global", "local")[i % 2] for i in range(self.num_layers))
        kinds = tuple(self.layers or alternating)
        if len(kinds) != self.num_layers or set(kinds) - {"global", "local"}:
            raise UserError(
                f'gpt_neo: layers is {kinds}: use "global" or "local" for each of '
                f"{self.num_layers} layers"
            )
        return dataclasses.replace(options, layers=kinds)


class DecoderLayer(nn.Module):
    """Attention to earlier tokens and two linear maps, each on normalised input and added to it."""

    options: GptNeoOptions

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """Map [batch, length, width] to the same shape."""
        options = self.options
        attention = Attention(
            options.num_heads,
            options.width // options.num_heads,
            scale=1.0,
            use_bias=False,
            dropout=options.attention_dropout,
            dtype=options.dtype,
            name="attention",
        )
        dropout = Dropout(options.dropout)
        y = attention(layer_norm(options, "attention_norm")(x), mask=mask, train=train)
        x += dropout(y, train)
        y = layer_norm(options, "ffn_norm")(x)
        return x + dropout(feed_forward(options, y), train)


class GptNeo(nn.Module):
    """Embeddings of tokens and positions, layers, a norm and the embedding as head."""

    options: GptNeoOptions

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [..., length] to logits and the features of `gpt_neo`."""
        options, shape = self.options, tokens["input_ids"].shape
        width, dtype = options.width, options.dtype
        ids = tokens["input_ids"].reshape(-1, shape[-1])
        real = tokens["attention_mask"].reshape(ids.shape) > 0
        positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
        word = embed(options, options.vocab_size, "word")
        x = word(ids) + embed(options, options.max_length, "position")(positions)
        x = Dropout(options.embedding_dropout)(x, train)
        hidden, masks = [x], _masks(real, positions, options.window)
        for index, kind in enumerate(options.layers):
            x = DecoderLayer(options, name=f"layer{index}")(x, masks[kind], train)
            hidden.append(x)
        x = hidden[-1] = layer_norm(options, "norm")(x)

        index = jnp.arange(shape[-1])
        logit_positions = tokens.get("logit_positions")
        if logit_positions is None:
            pooled = _at(x, jnp.max(jnp.where(real, index, 0), axis=1)[:, None])[:, 0]
            picked, logits_shape = x, shape
        else:
            picked = _at(x, logit_positions.reshape(x.shape[0], -1))
            pooled, logits_shape = picked[:, 0], logit_positions.shape
        logits = token_logits(picked, word.embedding, dtype)
        features = {f"hidden_{i}": h.reshape(*shape, width) for i, h in enumerate(hidden)}
        features["pooled"] = pooled.reshape(*shape[:-1], width).astype(jnp.float32)
        return Outputs(logits.reshape(*logits_shape, options.vocab_size), features)


def gpt_neo(options: GptNeoOptions) -> Model:
    """Make a GPT-Neo that gives logits of tokens.

    It reads "input_ids" and "attention_mask", int32 [batch, length] or [batch, choices, length].
    Positions and windows count real tokens only, wherever the padding is. With "logit_positions"
    [batch, (choices,) count] only the logits at these tokens are computed. Scores are not scaled.
    Features: "hidden_0" (the embeddings), ..., the last one after the last norm, and "pooled"
    [batch, (choices,) width], that state at the last real token, or at the first of the
    `logit_positions`.

    Raises:
      UserError: an option with an impossible value.
    """
    options = options.complete()
    inputs, length = ("input_ids", "attention_mask"), options.max_length
    optional = ("logit_positions",)
    return from_tokens(GptNeo(options), "gpt_neo", inputs, optional=optional, max_length=length)


def _masks(real: Array, positions: Array, window: int) -> dict[str, Array]:
    """Return the keys that each kind of layer sees, bool [batch, 1, targets, sources]."""
    length = real.shape[1]
    earlier = jnp.tril(jnp.ones((length, length), bool)) & key_mask(real)
    near = positions[:, :, None] - positions[:, None, :] < window
    return {"global": earlier, "local": earlier & near[:, None]}


def _at(x: Array, positions: Array) -> Array:
    """Pick [batch, count, width] from [batch, length, width]."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)
