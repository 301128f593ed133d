"""T5, after Raffel et al. (arXiv 1910.10683), 1.0 and 1.1: an encoder and a decoder of tokens."""

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
from kdjax.models.text.relative_position import relative_buckets
from kdjax.types import Array, Model, Outputs, UserError

__all__ = ["T5", "t5"]


class Sizes(NamedTuple):
    """What all layers of a T5 are told alike; see `t5`."""

    width: int
    num_heads: int
    head_width: int
    ffn_width: int
    gated: bool
    buckets: int
    max_distance: int
    epsilon: float
    dropout: float
    dtype: Any


class Stack(nn.Module):
    """Layers over embedded tokens, with a bias by distance that they share, and a last norm."""

    sizes: Sizes
    num_layers: int
    causal: bool

    @nn.compact
    def __call__(
        self, x: Array, mask: Array, context: Array | None, context_mask: Array | None, train: bool
    ) -> list[Array]:
        """Map [batch, length, width] to the hidden states: the input, each layer, the last norm."""
        sizes, length = self.sizes, x.shape[1]
        numbers = relative_buckets(
            length,
            length,
            buckets=sizes.buckets,
            max_distance=sizes.max_distance,
            both_sides=not self.causal,
        )
        table = nn.Embed(
            sizes.buckets, sizes.num_heads, embedding_init=_init(sizes.width), name="distance"
        )
        bias = table(numbers).transpose(2, 0, 1)[None]
        thin = Dropout(sizes.dropout)
        x = thin(x, train)
        hidden = [x]
        for index in range(self.num_layers):
            layer = Layer(sizes, name=f"layer{index}")
            x = layer(x, mask, bias, context, context_mask, train)
            hidden.append(x)
        norm = nn.RMSNorm(sizes.epsilon, dtype=sizes.dtype, name="norm")
        hidden[-1] = thin(norm(x), train)
        return hidden


class Layer(nn.Module):
    """Attention to itself, to the context if there is one, and two linear maps, norms first."""

    sizes: Sizes

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
        """Map [batch, length, width] to the same shape; `context` has rows [rows, source, width].

        Where the batch is a multiple of the rows, that many neighbours look at the same row.
        """
        sizes = self.sizes
        thin = Dropout(sizes.dropout)

        def norm(name: str) -> nn.RMSNorm:
            return nn.RMSNorm(sizes.epsilon, dtype=sizes.dtype, name=name)

        y = _attention(sizes, "attention")(
            norm("attention_norm")(x), mask=mask, bias=bias, train=train
        )
        x += thin(y, train)
        if context is not None:
            # nothing but the sources is masked: neighbours become one long row of targets
            rows = norm("cross_norm")(x).reshape(context.shape[0], -1, sizes.width)
            y = _attention(sizes, "cross")(rows, context, mask=context_mask, train=train)
            x += thin(y.reshape(x.shape), train)
        y = norm("ffn_norm")(x)
        if sizes.gated:
            gate = per_token(_dense(sizes, sizes.ffn_width, "ffn_gate"), y)
            y = ACTIVATIONS["gelu_new"](gate) * per_token(
                _dense(sizes, sizes.ffn_width, "ffn_in"), y
            )
        else:
            y = ACTIVATIONS["relu"](per_token(_dense(sizes, sizes.ffn_width, "ffn_in"), y))
        out = _dense(sizes, sizes.width, "ffn_out")
        return x + thin(per_token(out, thin(y, train)), train)


class T5(nn.Module):
    """Two stacks over one embedding, and a head of tokens; see `t5`."""

    sizes: Sizes
    vocab_size: int
    num_layers: int
    decoder_layers: int
    tied: bool

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids to logits [..., length, vocabulary] and the features of `t5`."""
        sizes = self.sizes
        word = nn.Embed(
            self.vocab_size,
            sizes.width,
            embedding_init=nn.initializers.normal(1.0),
            dtype=sizes.dtype,
            name="word",
        )
        real = tokens["attention_mask"]
        sources = key_mask(real)
        encoder = Stack(sizes, self.num_layers, causal=False, name="encoder")
        encoded = encoder(word(tokens["input_ids"]), sources, None, None, train)

        ids = tokens["decoder_input_ids"]  # [batch, (choices,) length]
        length = ids.shape[-1]
        earlier = jnp.tril(jnp.ones((1, 1, length, length), bool))
        decoder = Stack(sizes, self.decoder_layers, causal=True, name="decoder")
        x = word(ids.reshape(-1, length))
        decoded = decoder(x, earlier, encoded[-1], sources, train)

        last = decoded[-1]
        if self.tied:
            logits = token_logits(last * sizes.width**-0.5, word.embedding, sizes.dtype)
        else:
            head = nn.Embed(
                self.vocab_size, sizes.width, embedding_init=_init(sizes.width), name="lm_head"
            )
            logits = token_logits(last, head.embedding, sizes.dtype)
        counted = (real > 0).astype(jnp.float32)[..., None]
        total = (encoded[-1].astype(jnp.float32) * counted).sum(1)
        features = {"pooled": total / jnp.maximum(counted.sum(1), 1)}
        features |= {f"encoder_hidden_{i}": h for i, h in enumerate(encoded)}
        for index, h in enumerate(decoded):
            features[f"decoder_hidden_{index}"] = h.reshape(*ids.shape, sizes.width)
        return Outputs(logits.reshape(*ids.shape, self.vocab_size), features)


def t5(
    *,
    vocab_size: int = 32128,
    num_layers: int = 4,
    decoder_layers: int | None = None,
    width: int = 256,
    num_heads: int = 4,
    head_width: int | None = None,
    ffn_width: int | None = None,
    version: str = "1.1",
    tied: bool | None = None,
    buckets: int = 32,
    max_distance: int = 128,
    epsilon: float = 1e-6,
    dropout: float = 0.1,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Make a T5 that gives logits of tokens.

    It reads "input_ids" and "attention_mask" [batch, source], and "decoder_input_ids" [batch,
    target] or [batch, choices, target]: the source is encoded once and each choice decoded. The
    logits add the vocabulary to the shape of the decoder's ids. Scores are not scaled; both stacks
    bias them by the distance of tokens. Features: "encoder_hidden_0" (the embeddings), ..., the
    last one after the last norm, likewise "decoder_hidden_0", ..., and "pooled" [batch, width],
    the average of the encoder's last states over real tokens.

    Args:
      vocab_size: ids.
      num_layers: of the encoder.
      decoder_layers: as many if not given.
      width: of the hidden states.
      num_heads: of attention.
      head_width: of a head; width / num_heads if not given.
      ffn_width: between the linear maps of a layer; four times the width if not given.
      version: "1.0" (ReLU, head tied to the embedding) or "1.1" (gated GELU, head of its own).
      tied: whether the head is the embedding, where a network differs from its version; then the
        last state is multiplied by width^-0.5.
      buckets: of distances.
      max_distance: from which all distances are one.
      epsilon: of the norms.
      dropout: everywhere.
      dtype: of the computation; parameters, softmax and logits stay float32.
      axis_name: accepted as by every network; there is nothing to synchronise.

    Raises:
      UserError: an option with an impossible value.
    """
    del axis_name
    if version not in ("1.0", "1.1"):
        raise UserError(f't5: version is {version!r}: use "1.0" or "1.1"')
    decoder_layers = num_layers if decoder_layers is None else decoder_layers
    if head_width is None:
        check_sizes("t5", width=width, num_heads=num_heads)
        if width % num_heads:
            raise UserError(f"t5: num_heads is {num_heads}: it must divide the width, {width}")
        head_width = width // num_heads
    ffn_width = 4 * width if ffn_width is None else ffn_width
    check_sizes(
        "t5",
        vocab_size=vocab_size,
        num_layers=num_layers,
        decoder_layers=decoder_layers,
        width=width,
        num_heads=num_heads,
        head_width=head_width,
        ffn_width=ffn_width,
    )
    if buckets < 4 or buckets % 2 or max_distance <= buckets // 2:
        raise UserError(
            f"t5: buckets is {buckets}, max_distance {max_distance}: use an even number, at "
            "least 4, and a distance above half of it"
        )
    check_rate("t5", dropout=dropout)
    sizes = Sizes(
        width,
        num_heads,
        head_width,
        ffn_width,
        version == "1.1",
        buckets,
        max_distance,
        epsilon,
        dropout,
        compute_dtype(dtype),
    )
    own = version == "1.0" if tied is None else tied
    module = T5(sizes, vocab_size, num_layers, decoder_layers, own)
    return from_tokens(module, "t5", ("input_ids", "attention_mask", "decoder_input_ids"))


def _attention(sizes: Sizes, name: str) -> Attention:
    inner = sizes.num_heads * sizes.head_width
    return Attention(
        sizes.num_heads,
        sizes.head_width,
        scale=1.0,
        use_bias=False,
        out_bias=False,
        dropout=sizes.dropout,
        dtype=sizes.dtype,
        init=_init(sizes.width),
        query_init=_init(sizes.width * sizes.head_width),
        out_init=_init(inner),
        name=name,
    )


def _dense(sizes: Sizes, features: int, name: str) -> nn.Dense:
    fan_in = sizes.ffn_width if name == "ffn_out" else sizes.width
    return nn.Dense(
        features, use_bias=False, kernel_init=_init(fan_in), dtype=sizes.dtype, name=name
    )


def _init(fan_in: int) -> Any:
    return nn.initializers.normal(fan_in**-0.5)
