"""BERT, RoBERTa and DistilBERT: text encoders with a head for classification or regression.

BERT: Devlin et al. (arXiv 1810.04805). RoBERTa: Liu et al. (arXiv 1907.11692): one segment type,
and positions that start after the padding index, also in XLM-R. DistilBERT: Sanh et al. (arXiv
1910.01108): no segments, ReLU before the last layer.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError, check_count
from kdjax.models.text.attention import (
    Attention,
    Dropout,
    complete,
    embed,
    feed_forward,
    key_mask,
    layer_norm,
)
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs

_INIT = nn.initializers.normal(0.02)
_POOLERS = {"tanh": jnp.tanh, "relu": nn.relu}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertOptions:
    """Options of `bert`. None is replaced by the value in brackets."""

    num_classes: int = 2  # width of the logits; 1 is a regression
    vocab_size: int = 30522
    num_layers: int = 4
    width: int = 256  # of the hidden states
    num_heads: int = 4  # divides the width
    ffn_width: Any = None  # between the two linear maps of a layer [4 * width]
    max_length: int = 512  # positions
    first_position: Any = 0  # position of the first token; those before it are not used
    token_types: Any = 2  # rows of the segment embedding; 1: all tokens share it, 0: none
    pooler: str = "tanh"  # activation after the linear map of the first token: "tanh" or "relu"
    activation: str = "gelu"  # "gelu" (exact), "gelu_new" (by tanh) or "relu"
    epsilon: float = 1e-12  # of the layer norms
    dropout: float = 0.1  # of embeddings and layers
    attention_dropout: Any = None  # of the attention weights [dropout]
    head_dropout: Any = None  # of the pooled features [dropout]
    pooler_dropout: Any = 0.0  # of the first token before its linear map [head_dropout]
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # without effect; networks with batch norm use it

    def complete(self) -> "BertOptions":
        """Replace None by defaults (except in `dtype`) and check all options; raises UserError."""
        head = self.dropout if self.head_dropout is None else self.head_dropout
        rates = {"attention_dropout": self.dropout, "head_dropout": head, "pooler_dropout": head}
        for name in ("token_types", "first_position"):
            if (value := getattr(self, name)) != 0:
                check_count(f"bert: {name}", value)
        if self.pooler not in _POOLERS:
            raise UserError(f"bert: pooler is {self.pooler!r}: use {' or '.join(_POOLERS)}")
        checked = complete("bert", self, ffn_width=4 * self.width, **rates)
        if checked.first_position >= checked.max_length:
            raise UserError(
                f"bert: first_position is {self.first_position}: it must be below max_length, "
                f"{self.max_length}"
            )
        return checked


class EncoderLayer(nn.Module):
    """A residual layer with norms after the sums: attention, then two linear maps."""

    options: BertOptions

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """Map [batch, length, width] to the same shape."""
        options, head_width = self.options, x.shape[-1] // self.options.num_heads
        attention = Attention(
            options.num_heads,
            head_width,
            scale=head_width**-0.5,
            dropout=options.attention_dropout,
            dtype=options.dtype,
            name="attention",
        )
        dropout = Dropout(options.dropout)
        y = dropout(attention(x, mask=mask, train=train), train)
        x = layer_norm(options, "attention_norm")(x + y)
        return layer_norm(options, "ffn_norm")(x + dropout(feed_forward(options, x), train))


class Bert(nn.Module):
    """Embeddings, layers, a pooler on the first token and a linear head; see `bert`."""

    options: BertOptions

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [batch, length] to logits and the features of `bert`."""
        options, ids = self.options, tokens["input_ids"]
        width, dtype = options.width, options.dtype
        x = embed(options, options.vocab_size, "word")(ids)
        # a slice, because the gradient of a look-up adds rows one by one
        first, table = options.first_position, embed(options, options.max_length, "position")
        x += table.embedding[first : first + ids.shape[1]].astype(x.dtype)
        if options.token_types == 1:
            x += embed(options, 1, "token_type").embedding.astype(x.dtype)
        elif options.token_types:
            x += embed(options, options.token_types, "token_type")(tokens["token_type_ids"])
        x = layer_norm(options, "embedding_norm")(x)
        x = Dropout(options.dropout)(x, train)
        features = {"hidden_0": x}
        mask = key_mask(tokens["attention_mask"])
        for index in range(options.num_layers):
            x = EncoderLayer(options, name=f"layer{index}")(x, mask, train)
            features[f"hidden_{index + 1}"] = x
        first_token = Dropout(options.pooler_dropout, name="pooler_dropout")(x[:, 0], train)
        pooled = _POOLERS[options.pooler](_dense(width, dtype, "pooler")(first_token))
        pooled = pooled.astype(jnp.float32)
        features["pooled"] = pooled
        pooled = Dropout(options.head_dropout)(pooled, train)
        return Outputs(_dense(options.num_classes, jnp.float32, "fc")(pooled), features)


def bert(options: BertOptions) -> Model:
    """Make a BERT with a linear head.

    A batch has "input_ids", "attention_mask" and, with two or more `token_types`, "token_type_ids",
    int32 [batch, length].

    Returns:
      A Model with logits [batch, num_classes] and the features "hidden_0" (the embeddings),
      "hidden_1", ... [batch, length, width], and "pooled" [batch, width] (the pooler's activation).

    Raises:
      UserError: an option with an impossible value.
    """
    options = options.complete()
    inputs = ("input_ids", "attention_mask")
    if options.token_types > 1:
        inputs += ("token_type_ids",)
    length = options.max_length - options.first_position
    return from_tokens(Bert(options), "bert", inputs, max_length=length)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_INIT, dtype=dtype, name=name)
