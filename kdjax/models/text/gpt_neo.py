"""GPT-2 (Radford et al. 2019) and GPT-Neo (Black et al. 2021): decoders with learned positions.

A layer attends to all earlier tokens or, in GPT-Neo, to a window of the last ones. GPT-2 divides
scores by the root of a head's width, and its maps to queries, keys and values have a bias.
"""

import dataclasses
from typing import Any

from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.text.attention import (
    Attention,
    Dropout,
    complete,
    embed,
    feed_forward,
    layer_norm,
)
from kdjax.models.text.causal import decoder_outputs, read_tokens
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs

_INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GptNeoOptions:
    """Options of `gpt_neo`. None is replaced by the value in brackets."""

    vocab_size: int = 50257
    num_layers: int = 4
    width: int = 256  # of the hidden states
    num_heads: int = 4  # divides the width
    ffn_width: Any = None  # between the two linear maps of a layer [4 * width]
    max_length: int = 2048  # positions
    layers: Any = None  # "global" (all earlier tokens) or "local", of all or of each [alternating]
    window: int = 256  # tokens that a local layer attends to, the current one included
    scaled: bool = False  # scores are divided by the root of a head's width
    attention_bias: bool = False  # of queries, keys and values
    activation: str = "gelu_new"  # "gelu_new" (by tanh), "gelu" (exact), "relu" or "silu"
    epsilon: float = 1e-5  # of the layer norms
    dropout: float = 0.1  # of the layers
    attention_dropout: Any = None  # of the attention weights [dropout]
    embedding_dropout: Any = None  # of the embeddings [dropout]
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # without effect; networks with batch norm use it

    def complete(self) -> "GptNeoOptions":
        """Replace None by defaults (except in `dtype`) and check all options; raises UserError."""
        rates = {"attention_dropout": self.dropout, "embedding_dropout": self.dropout}
        options = complete("gpt_neo", self, ffn_width=4 * self.width, **rates)
        kinds = self.layers or ("global", "local") * self.num_layers
        if isinstance(kinds, str):
            kinds = (kinds,) * self.num_layers
        kinds = tuple(kinds if self.layers else kinds[: self.num_layers])
        if len(kinds) != self.num_layers or set(kinds) - {"global", "local"}:
            raise UserError(
                f'gpt_neo: layers is {kinds}: use "global" or "local" for each of '
                f"{self.num_layers} layers"
            )
        return dataclasses.replace(options, layers=kinds)


class DecoderLayer(nn.Module):
    """A residual layer with norms before its maps: causal attention, then two linear maps."""

    options: GptNeoOptions

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """Map [batch, length, width] to the same shape."""
        options = self.options
        head_width = options.width // options.num_heads
        attention = Attention(
            options.num_heads,
            head_width,
            scale=head_width**-0.5 if options.scaled else 1.0,
            use_bias=options.attention_bias,
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
    """Embeddings of tokens and positions, layers, a norm and a tied head; see `gpt_neo`."""

    options: GptNeoOptions

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [..., length] to logits and the features of `gpt_neo`."""
        options = self.options
        ids, positions, masks = read_tokens(self, tokens, options.window)
        word = embed(options, options.vocab_size, "word")
        x = word(ids) + embed(options, options.max_length, "position")(positions)
        x = Dropout(options.embedding_dropout)(x, train)
        hidden = [x]
        for index, kind in enumerate(options.layers):
            x = DecoderLayer(options, name=f"layer{index}")(x, masks[kind], train)
            hidden.append(x)
        hidden[-1] = layer_norm(options, "norm")(x)
        return decoder_outputs(tokens, hidden, word.embedding, options.dtype)


def gpt_neo(options: GptNeoOptions) -> Model:
    """Make a GPT-Neo or, by its options, a GPT-2, with logits of tokens.

    A batch has "input_ids" and "attention_mask", int32 [batch, length] or [batch, choices, length].
    Positions and windows count real tokens only, wherever the padding is. With "logit_positions"
    [batch, (choices,) count] only the logits at these positions are computed. With "segment_ids" of
    the ids' shape a row holds several texts, and positions and attention stay within each text.

    Returns:
      A Model with logits [batch, (choices,) length, vocabulary] and the features "hidden_0" (the
      embeddings), "hidden_1", ... [batch, (choices,) length, width], the last one after the last
      norm, and "pooled" [batch, (choices,) width], the last state at the last real token or at the
      first of the `logit_positions`.

    Raises:
      UserError: an option with an impossible value.
    """
    options = options.complete()
    inputs, length = ("input_ids", "attention_mask"), options.max_length
    optional = ("logit_positions", "segment_ids")
    return from_tokens(GptNeo(options), "gpt_neo", inputs, optional=optional, max_length=length)
