"""T5 1.0 and 1.1 (Raffel et al., arXiv 1910.10683): an encoder and a decoder of tokens."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.text.attention import (
    ACTIVATIONS,
    Attention,
    Dropout,
    complete,
    key_mask,
    per_token,
    token_logits,
)
from kdjax.models.text.inputs import from_tokens
from kdjax.models.text.relative_position import relative_buckets
from kdjax.types import Array, Model, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Options:
    """Options of `t5`. None is replaced by the value in brackets."""

    vocab_size: int = 32128
    num_layers: int = 4  # of the encoder
    decoder_layers: Any = None  # [num_layers]
    width: int = 256  # of the hidden states
    num_heads: int = 4
    head_width: Any = None  # [width / num_heads]
    ffn_width: Any = None  # between the linear maps of a layer [4 * width]
    version: str = "1.1"  # "1.0" (ReLU, head tied to the embedding) or "1.1" (gated GELU, untied)
    tied: Any = None  # the head is the embedding [version == "1.0"]
    scale_outputs: Any = None  # multiply the last states by width^-0.5 before the head [tied]
    buckets: int = 32  # of distances
    max_distance: int = 128  # all larger distances share one bucket
    epsilon: float = 1e-6  # of the norms
    dropout: float = 0.1
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # without effect; networks with batch norm use it

    def complete(self) -> "T5Options":
        """Replace None by defaults (except in `dtype`) and check all options; raises UserError."""
        if self.version not in ("1.0", "1.1"):
            raise UserError(f't5: version is {self.version!r}: use "1.0" or "1.1"')
        options = complete(
            "t5",
            self,
            decoder_layers=self.num_layers,
            ffn_width=4 * self.width,
            tied=self.version == "1.0",
        )
        if options.head_width is None:
            head_width = options.width // options.num_heads
            options = dataclasses.replace(options, head_width=head_width)
        if options.scale_outputs is None:
            options = dataclasses.replace(options, scale_outputs=options.tied)
        buckets, distance = self.buckets, self.max_distance
        if buckets < 4 or buckets % 2 or distance <= buckets // 2:
            raise UserError(
                f"t5: buckets is {buckets} and max_distance {distance}: use an even number of at "
                "least 4 buckets, and a max_distance above half of it"
            )
        return options


class Stack(nn.Module):
    """The encoder or the decoder: layers that share a bias by relative position, and a norm."""

    options: T5Options
    num_layers: int
    causal: bool

    @nn.compact
    def __call__(
        self, x: Array, mask: Array, context: Array | None, context_mask: Array | None, train: bool
    ) -> list[Array]:
        """Map [batch, length, width] to the input and each layer's output, the last normalised."""
        options, length = self.options, x.shape[1]
        numbers = relative_buckets(
            length,
            length,
            buckets=options.buckets,
            max_distance=options.max_distance,
            both_sides=not self.causal,
        )
        table = nn.Embed(
            options.buckets, options.num_heads, embedding_init=_init(options.width), name="distance"
        )
        bias = table(numbers).transpose(2, 0, 1)[None]
        dropout = Dropout(options.dropout)
        x = dropout(x, train)
        hidden = [x]
        for index in range(self.num_layers):
            layer = Layer(options, name=f"layer{index}")
            x = layer(x, mask, bias, context, context_mask, train)
            hidden.append(x)
        norm = nn.RMSNorm(options.epsilon, dtype=options.dtype, name="norm")
        hidden[-1] = dropout(norm(x), train)
        return hidden


class Layer(nn.Module):
    """Self-attention, cross-attention if there is a context, and two linear maps; norms first."""

    options: T5Options

    @nn.compact
    def __call__(
        self,
        x: Array,
        mask: Array,
        bias: Array,
        context: Array | None,
        context_mask: Array | None,
        train: bool,
    ) -> Array:
        """Map [batch, length, width] to the same shape, attending to `context` if it is set.

        `context` is [rows, source, width]; batch / rows consecutive examples share one of its rows.
        """
        options = self.options
        dropout = Dropout(options.dropout)

        def norm(name: str) -> nn.RMSNorm:
            return nn.RMSNorm(options.epsilon, dtype=options.dtype, name=name)

        y = _attention(options, "attention")(
            norm("attention_norm")(x), mask=mask, bias=bias, train=train
        )
        x += dropout(y, train)
        if context is not None:
            # only sources are masked, so examples that share a row of the context can form one row
            rows = norm("cross_norm")(x).reshape(context.shape[0], -1, options.width)
            y = _attention(options, "cross")(rows, context, mask=context_mask, train=train)
            x += dropout(y.reshape(x.shape), train)
        y = norm("ffn_norm")(x)
        inner = per_token(_dense(options, options.ffn_width, "ffn_in"), y)
        if options.version == "1.1":
            gate = per_token(_dense(options, options.ffn_width, "ffn_gate"), y)
            y = ACTIVATIONS["gelu_new"](gate) * inner
        else:
            y = ACTIVATIONS["relu"](inner)
        out = _dense(options, options.width, "ffn_out")
        return x + dropout(per_token(out, dropout(y, train)), train)


class T5(nn.Module):
    """Two stacks over one embedding, and a head of tokens; see `t5`."""

    options: T5Options

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids to logits [..., length, vocabulary] and the features of `t5`."""
        options = self.options
        word = nn.Embed(
            options.vocab_size,
            options.width,
            embedding_init=nn.initializers.normal(1.0),
            dtype=options.dtype,
            name="word",
        )
        real = tokens["attention_mask"]
        sources = key_mask(real)
        encoder = Stack(options, options.num_layers, causal=False, name="encoder")
        encoded = encoder(word(tokens["input_ids"]), sources, None, None, train)

        ids = tokens["decoder_input_ids"]  # [batch, (choices,) length]
        length = ids.shape[-1]
        earlier = jnp.tril(jnp.ones((1, 1, length, length), bool))
        decoder = Stack(options, options.decoder_layers, causal=True, name="decoder")
        x = word(ids.reshape(-1, length))
        decoded = decoder(x, earlier, encoded[-1], sources, train)

        last = decoded[-1] * options.width**-0.5 if options.scale_outputs else decoded[-1]
        head = word
        if not options.tied:
            init = _init(options.width)
            head = nn.Embed(options.vocab_size, options.width, embedding_init=init, name="lm_head")
        logits = token_logits(last, head.embedding, options.dtype)
        counted = (real > 0).astype(jnp.float32)[..., None]
        total = (encoded[-1].astype(jnp.float32) * counted).sum(1)
        features = {"pooled": total / jnp.maximum(counted.sum(1), 1)}
        features |= {f"encoder_hidden_{i}": h for i, h in enumerate(encoded)}
        for index, h in enumerate(decoded):
            features[f"decoder_hidden_{index}"] = h.reshape(*ids.shape, options.width)
        return Outputs(logits.reshape(*ids.shape, options.vocab_size), features)


def t5(options: T5Options) -> Model:
    """Make a T5 with logits of tokens.

    A batch has "input_ids" and "attention_mask" [batch, source], and "decoder_input_ids" [batch,
    (choices,) target]: the source is encoded once, and each choice is decoded. Attention scores are
    not scaled, and have a bias by the relative position of tokens.

    Returns:
      A Model with logits [batch, (choices,) target, vocabulary] and the features "encoder_hidden_0"
      (the embeddings), ... [batch, source, width], the last one after the last norm, likewise
      "decoder_hidden_0", ... [batch, (choices,) target, width], and "pooled" [batch, width], the
      mean of the encoder's last states over real tokens.

    Raises:
      UserError: an option with an impossible value.
    """
    inputs = ("input_ids", "attention_mask", "decoder_input_ids")
    return from_tokens(T5(options.complete()), "t5", inputs)


def _attention(options: T5Options, name: str) -> Attention:
    inner = options.num_heads * options.head_width
    return Attention(
        options.num_heads,
        options.head_width,
        scale=1.0,
        use_bias=False,
        out_bias=False,
        dropout=options.dropout,
        dtype=options.dtype,
        init=_init(options.width),
        query_init=_init(options.width * options.head_width),
        out_init=_init(inner),
        name=name,
    )


def _dense(options: T5Options, features: int, name: str) -> nn.Dense:
    fan_in = options.ffn_width if name == "ffn_out" else options.width
    return nn.Dense(
        features, use_bias=False, kernel_init=_init(fan_in), dtype=options.dtype, name=name
    )


def _init(fan_in: int) -> Any:
    return nn.initializers.normal(fan_in**-0.5)
