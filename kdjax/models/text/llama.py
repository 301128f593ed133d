"""Llama, Mistral, Qwen2 and Qwen3: decoders with rotary positions, gated layers and RMS norms.

Llama: Touvron et al. (arXiv 2302.13971); scaled rotation: Grattafiori et al. (arXiv 2407.21783).
Mistral: Jiang et al. (arXiv 2310.06825): attention within a window. Qwen2: Yang et al. (arXiv
2407.10671): biases of queries, keys and values. Qwen3: arXiv 2505.09388: RMS norms of query and
key heads.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kdjax.errors import UserError, is_number
from kdjax.models.text.attention import (
    ACTIVATIONS,
    Attention,
    Dropout,
    complete,
    embed,
    per_token,
)
from kdjax.models.text.causal import decoder_outputs, read_tokens
from kdjax.models.text.inputs import from_tokens
from kdjax.types import Array, Model, Outputs

# keys of `rope_scaling` by its kind
_SCALINGS = {
    "linear": ("factor",),
    "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaOptions:
    """Options of `llama`. None is replaced by the value in brackets."""

    vocab_size: int = 32000
    num_layers: int = 4
    width: int = 256  # of the hidden states
    num_heads: int = 4  # of queries
    kv_heads: Any = None  # of keys and values, shared by queries; divides num_heads [num_heads]
    head_width: Any = None  # [width / num_heads]
    ffn_width: Any = None  # between the linear maps of a layer [4 * width]
    max_length: int = 2048  # positions
    rope_theta: float = 10000.0  # base of the wavelengths of rotary positions
    rope_scaling: Any = None  # {"rope_type": "linear" or "llama3", ...} [no scaling]
    window: Any = None  # tokens that a local layer attends to, the current one included
    layers: Any = None  # "global" (all earlier tokens) or "local", by layer [local with a window]
    attention_bias: bool = False  # of queries, keys and values
    out_bias: bool = False  # of the map after attention
    ffn_bias: bool = False
    head_norm: bool = False  # each head of queries and keys is normalised
    tied: bool = False  # the head is the embedding
    activation: str = "silu"  # "silu", "gelu" (exact), "gelu_new" (by tanh) or "relu"
    epsilon: float = 1e-6  # of the norms
    dropout: float = 0.0  # of embeddings and layers
    attention_dropout: Any = None  # of the attention weights [dropout]
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # without effect; networks with batch norm use it

    def complete(self) -> "LlamaOptions":
        """Replace None by defaults (except in `window`, `dtype`), check all; raises UserError."""
        options = complete(
            "llama",
            self,
            ffn_width=4 * self.width,
            kv_heads=self.num_heads,
            attention_dropout=self.dropout,
        )
        if options.head_width is None:
            head_width = options.width // options.num_heads
            options = dataclasses.replace(options, head_width=head_width)
        if options.head_width % 2:
            raise UserError(
                f"llama: head_width is {options.head_width}: it must be even, for rotary positions"
            )
        kind = "global" if self.window is None else "local"
        layers = tuple(self.layers or (kind,) * self.num_layers)
        if len(layers) != self.num_layers or set(layers) - {"global", "local"}:
            raise UserError(
                f'llama: layers is {layers}: use "global" or "local" for each of '
                f"{self.num_layers} layers"
            )
        if "local" in layers and self.window is None:
            raise UserError('llama: layers has "local", but window is None: set a window')
        return dataclasses.replace(
            options, layers=layers, rope_scaling=_check_scaling(self.rope_scaling)
        )


def _check_scaling(scaling: Any) -> dict[str, Any] | None:
    """Check the scaling of wavelengths; its kind is under "rope_type" or, in old files, "type"."""
    if scaling is None:
        return None
    if not isinstance(scaling, Mapping):
        raise UserError(f"llama: rope_scaling is {scaling!r}; it must be a table")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind not in _SCALINGS:
        known = " or ".join(_SCALINGS)
        raise UserError(f"llama: rope_scaling.rope_type is {kind!r}; use {known}")
    for key in _SCALINGS[kind]:
        if not (is_number(scaling.get(key)) and scaling[key] > 0):
            raise UserError(f"llama: rope_scaling.{key} is {scaling.get(key)!r}; use a number > 0")
    return {"rope_type": kind, **{key: scaling[key] for key in _SCALINGS[kind]}}


def rotary_frequencies(options: LlamaOptions) -> np.ndarray:
    """Return the angle per position of each pair of a head, in radians, float32 [head_width / 2].

    Angle j is theta^(-2j / head_width). The scaling "linear" divides all angles by its factor.
    "llama3" divides those of wavelengths above original_max_position_embeddings / low_freq_factor,
    keeps those below original_max_position_embeddings / high_freq_factor, and interpolates between.
    """
    exponents = np.arange(0, options.head_width, 2, dtype=np.float32) / options.head_width
    angles = 1.0 / np.float32(options.rope_theta) ** exponents
    scaling = options.rope_scaling
    if scaling is None:
        return angles
    slow = angles / scaling["factor"]
    if scaling["rope_type"] == "linear":
        return slow
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    rotations = scaling["original_max_position_embeddings"] * angles / (2 * math.pi)
    share = np.clip((rotations - low) / (high - low), 0, 1)
    return ((1 - share) * slow + share * angles).astype(np.float32)


def rotate(heads: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pairs (j, j + width / 2) of heads [batch, length, heads, width] by angles."""
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    pairs = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(pairs, axis=-1).astype(heads.dtype)


class LlamaLayer(nn.Module):
    """A residual layer with norms before its maps: causal attention, then a gated map."""

    options: LlamaOptions

    @nn.compact
    def __call__(self, x: Array, mask: Array, turns: tuple[Array, Array], train: bool) -> Array:
        """Map [batch, length, width] to the same shape; `turns` are cosines and sines."""
        options = self.options

        def norm(name: str) -> nn.RMSNorm:
            return nn.RMSNorm(options.epsilon, dtype=options.dtype, name=name)

        def dense(features: int, name: str) -> nn.Dense:
            init, bias = nn.initializers.normal(0.02), options.ffn_bias
            return nn.Dense(features, bias, kernel_init=init, dtype=options.dtype, name=name)

        attention = Attention(
            options.num_heads,
            options.head_width,
            scale=options.head_width**-0.5,
            kv_heads=options.kv_heads,
            head_epsilon=options.epsilon if options.head_norm else None,
            use_bias=options.attention_bias,
            out_bias=options.out_bias,
            dropout=options.attention_dropout,
            dtype=options.dtype,
            name="attention",
        )
        y = attention(
            norm("attention_norm")(x), mask=mask, rotate=lambda h: rotate(h, *turns), train=train
        )
        dropout = Dropout(options.dropout)
        x += dropout(y, train)
        y = norm("ffn_norm")(x)
        gate = ACTIVATIONS[options.activation](per_token(dense(options.ffn_width, "ffn_gate"), y))
        y = gate * per_token(dense(options.ffn_width, "ffn_in"), y)
        return x + dropout(per_token(dense(options.width, "ffn_out"), y), train)


class Llama(nn.Module):
    """Embeddings, layers, a norm, and a head of tokens; see `llama`."""

    options: LlamaOptions

    @nn.compact
    def __call__(self, tokens: dict[str, Array], train: bool = False) -> Outputs:
        """Map token ids [..., length] to logits and the features of `llama`."""
        options = self.options
        ids, positions, masks = read_tokens(self, tokens, options.window)
        angles = positions[:, :, None, None] * rotary_frequencies(options)
        turns = (jnp.cos(angles), jnp.sin(angles))
        word = embed(options, options.vocab_size, "word")
        x = Dropout(options.dropout)(word(ids), train)
        hidden = [x]
        for index, kind in enumerate(options.layers):
            x = LlamaLayer(options, name=f"layer{index}")(x, masks[kind], turns, train)
            hidden.append(x)
        hidden[-1] = nn.RMSNorm(options.epsilon, dtype=options.dtype, name="norm")(x)
        head = word if options.tied else embed(options, options.vocab_size, "lm_head")
        return decoder_outputs(tokens, hidden, head.embedding, options.dtype)


def llama(options: LlamaOptions) -> Model:
    """Make a Llama or, by its options, a Mistral, Qwen2 or Qwen3, with logits of tokens.

    Batches, logits and features are those of `gpt_neo.gpt_neo`; positions are rotary.

    Raises:
      UserError: an option with an impossible value.
    """
    options = options.complete()
    inputs, length = ("input_ids", "attention_mask"), options.max_length
    optional = ("logit_positions", "segment_ids")
    return from_tokens(Llama(options), "llama", inputs, optional=optional, max_length=length)
