"""BERT, after Devlin et al. (arXiv 1810.04805): an encoder with a head for classes or numbers."""

from typing import Any

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
)
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs, UserError

__all__ = ["Bert", "bert"]

_INIT = nn.initializers.normal(0.02)


class EncoderLayer(nn.Module):
    """Attention, then two linear maps; each is added to its input and the sum normalised."""

    num_heads: int
    ffn_width: int
    activation: str
    epsilon: float
    dropout: float
    attention_dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """Map [batch, length, width] to the same shape."""
        head_width = x.shape[-1] // self.num_heads
        attention = Attention(
            self.num_heads,
            head_width,
            scale=head_width**-0.5,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            name="attention",
        )
        thin = Dropout(self.dropout)
        y = thin(attention(x, mask=mask, train=train), train)
        x = _norm(self.epsilon, self.dtype, "attention_norm")(x + y)
        y = per_token(_dense(self.ffn_width, self.dtype, "ffn_in"), x)
        y = per_token(_dense(x.shape[-1], self.dtype, "ffn_out"), ACTIVATIONS[self.activation](y))
        return _norm(self.epsilon, self.dtype, "ffn_norm")(x + thin(y, train))


class Bert(nn.Module):
    """Embeddings, layers, a pooler on the first token and a linear head; see `bert`."""

    num_classes: int
    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    max_length: int
    token_types: int
    activation: str
    epsilon: float
    dropout: float
    attention_dropout: float
    head_dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [batch, length] to logits and the features of `bert`."""
        ids = tokens["input_ids"]

        def embed(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, self.width, embedding_init=_INIT, dtype=self.dtype, name=name)

        x = embed(self.vocab_size, "word")(ids)
        # a slice: the gradient of a look-up adds rows one by one
        x += embed(self.max_length, "position").embedding[: ids.shape[1]].astype(x.dtype)
        x += embed(self.token_types, "token_type")(tokens["token_type_ids"])
        x = _norm(self.epsilon, self.dtype, "embedding_norm")(x)
        x = Dropout(self.dropout)(x, train)
        features = {"hidden_0": x}
        mask = key_mask(tokens["attention_mask"])
        for index in range(self.num_layers):
            layer = EncoderLayer(
                self.num_heads,
                self.ffn_width,
                self.activation,
                self.epsilon,
                self.dropout,
                self.attention_dropout,
                self.dtype,
                name=f"layer{index}",
            )
            x = features[f"hidden_{index + 1}"] = layer(x, mask, train)
        pooled = jnp.tanh(_dense(self.width, self.dtype, "pooler")(x[:, 0])).astype(jnp.float32)
        features["pooled"] = pooled
        thinned = Dropout(self.head_dropout)(pooled, train)
        return Outputs(_dense(self.num_classes, jnp.float32, "fc")(thinned), features)


def bert(
    *,
    num_classes: int,
    vocab_size: int = 30522,
    num_layers: int = 4,
    width: int = 256,
    num_heads: int = 4,
    ffn_width: int | None = None,
    max_length: int = 512,
    token_types: int = 2,
    activation: str = "gelu",
    epsilon: float = 1e-12,
    dropout: float = 0.1,
    attention_dropout: float | None = None,
    head_dropout: float | None = None,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Make a BERT with a linear head: `num_classes` logits, or 1 for a regression.

    It reads "input_ids", "attention_mask" and "token_type_ids", int32 [batch, length], and
    normalises after each sum. Features: "hidden_0" (the embeddings), "hidden_1", ...
    [batch, length, width], "pooled" [batch, width] (tanh of a linear map of the first token).

    Args:
      num_classes: width of the logits.
      vocab_size: ids.
      num_layers: layers.
      width: of the hidden states.
      num_heads: of attention; they divide the width.
      ffn_width: between the two maps of a layer; four times the width if not given.
      max_length: positions.
      token_types: rows of the embedding of segments.
      activation: "gelu" (exact), "gelu_new" (by tanh) or "relu".
      epsilon: of the layer norms.
      dropout: of embeddings, layers, and, where not given, of the next two.
      attention_dropout: of the attention's weights.
      head_dropout: of the pooled features.
      dtype: of the computation; parameters, softmax and logits stay float32.
      axis_name: accepted as by every network; there is nothing to synchronise.

    Raises:
      UserError: an option with an impossible value.
    """
    del axis_name
    ffn_width = 4 * width if ffn_width is None else ffn_width
    check_sizes(
        "bert",
        vocab_size=vocab_size,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        ffn_width=ffn_width,
        max_length=max_length,
        token_types=token_types,
    )
    if width % num_heads:
        raise UserError(f"bert: num_heads is {num_heads}: it must divide the width, {width}")
    if activation not in ACTIVATIONS:
        raise UserError(f"bert: activation is {activation!r}: use {', '.join(ACTIVATIONS)}")
    of_attention = dropout if attention_dropout is None else attention_dropout
    of_head = dropout if head_dropout is None else head_dropout
    check_rate("bert", dropout=dropout, attention_dropout=of_attention, head_dropout=of_head)
    module = Bert(
        num_classes=num_classes,
        vocab_size=vocab_size,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        ffn_width=ffn_width,
        max_length=max_length,
        token_types=token_types,
        activation=activation,
        epsilon=epsilon,
        dropout=dropout,
        attention_dropout=of_attention,
        head_dropout=of_head,
        dtype=compute_dtype(dtype),
    )
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return from_tokens(module, "bert", inputs, max_length=max_length)


def _norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    # the two-pass variance: the other loses digits where the mean is far from 0
    return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_INIT, dtype=dtype, name=name)
