"""ViT (Dosovitskiy et al., arXiv 2010.11929) and DeiT (Touvron et al., arXiv 2012.12877).

A DeiT has a second token, whose linear layer learns from a teacher; the logits are the mean of both
layers' outputs.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.from_linen import from_linen
from kdjax.models.text.attention import Attention, Dropout, complete, feed_forward, layer_norm
from kdjax.types import Array, Model, Outputs

_INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VitOptions:
    """Options of `vit`. None stands for the value in brackets."""

    num_classes: int = 1000  # width of the logits
    image_size: Any = None  # side of the images [that of the first images]
    patch_size: int = 16  # side of a patch; divides that of the images
    num_layers: int = 12
    width: int = 192  # of the hidden states
    num_heads: int = 3  # divides the width
    ffn_width: Any = None  # between the two linear maps of a layer [4 * width]
    attention_bias: bool = True  # of queries, keys and values
    distilled: bool = False  # with a distillation token and its layer
    activation: str = "gelu"  # "gelu" (exact), "gelu_new" (by tanh), "relu" or "silu"
    epsilon: float = 1e-6  # of the layer norms
    dropout: float = 0.0  # of embeddings and layers
    attention_dropout: Any = None  # of the attention weights [dropout]
    dtype: Any = None  # of the computation; parameters, softmax and logits stay float32
    axis_name: str | None = None  # accepted as by every network; there is nothing to synchronise

    def complete(self) -> "VitOptions":
        """Return the options without None (`image_size`, `dtype` aside), all checked."""
        rates = {"attention_dropout": self.dropout}
        options = complete("vit", self, ffn_width=4 * self.width, **rates)
        if (self.image_size or self.patch_size) % self.patch_size:
            raise UserError(
                f"vit: patch_size is {self.patch_size}: it must divide image_size, "
                f"{self.image_size}"
            )
        return options


class VitLayer(nn.Module):
    """Attention and two linear maps, each on normalised input and added to it."""

    options: VitOptions

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map [batch, tokens, width] to the same shape."""
        options, head_width = self.options, x.shape[-1] // self.options.num_heads
        attention = Attention(
            options.num_heads,
            head_width,
            scale=head_width**-0.5,
            use_bias=options.attention_bias,
            dropout=options.attention_dropout,
            dtype=options.dtype,
            name="attention",
        )
        dropout = Dropout(options.dropout)
        x += dropout(attention(layer_norm(options, "attention_norm")(x), train=train), train)
        y = layer_norm(options, "ffn_norm")(x)
        return x + dropout(feed_forward(options, y), train)


class Vit(nn.Module):
    """Linear maps of patches, one or two more tokens, layers, a norm, linear heads; see `vit`."""

    options: VitOptions

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features of `vit`."""
        options = self.options
        _check_size(options, x.shape)
        side = (options.patch_size,) * 2
        init = nn.initializers.lecun_normal()
        patch = nn.Conv(
            options.width, side, side, "VALID", kernel_init=init, dtype=options.dtype, name="patch"
        )
        x = patch(x).reshape(x.shape[0], -1, options.width)
        names = ("class_token", "distillation_token")[: 1 + options.distilled]
        shape = (1, 1, options.width)
        first = [self.param(name, _INIT, shape).astype(x.dtype) for name in names]
        tokens = [jnp.broadcast_to(token, (x.shape[0], *shape[1:])) for token in first]
        x = jnp.concatenate([*tokens, x], axis=1)
        x += self.param("position", _INIT, (1, *x.shape[1:])).astype(x.dtype)
        x = Dropout(options.dropout)(x, train)
        features = {"hidden_0": x}
        for index in range(options.num_layers):
            x = VitLayer(options, name=f"layer{index}")(x, train)
            features[f"hidden_{index + 1}"] = x
        x = layer_norm(options, "norm")(x).astype(jnp.float32)
        features["pooled"] = x[:, 0]
        logits = self._head("fc", x[:, 0])
        if options.distilled:
            features["class_logits"] = logits
            features["distillation_logits"] = self._head("distillation_fc", x[:, 1])
            logits = (logits + features["distillation_logits"]) / 2
        return Outputs(logits, features)

    def _head(self, name: str, x: Array) -> Array:
        return nn.Dense(self.options.num_classes, kernel_init=_INIT, name=name)(x)


def _check_size(options: VitOptions, shape: tuple[int, ...]) -> None:
    sides, patch = shape[1:3], options.patch_size
    size = options.image_size
    if size is not None and sides != (size, size):
        raise UserError(
            f"vit: images are {sides[0]} x {sides[1]}, but the network has positions for {size} x "
            f"{size}: set data.image_size={size}"
        )
    if any(side % patch for side in sides):
        raise UserError(
            f"vit: images are {sides[0]} x {sides[1]}: use sides that patch_size {patch} divides"
        )


def vit(options: VitOptions) -> Model:
    """Make a ViT, or with `distilled` a DeiT, for images of one size.

    It reads "image" [batch, height, width, channel]. Features: "hidden_0" (the embedded patches
    behind the class token and the distillation token), "hidden_1", ... [batch, tokens, width],
    "pooled" [batch, width] (the class token after the last norm); of a DeiT also "class_logits" and
    "distillation_logits" [batch, classes], whose mean is the logits.

    Raises:
      UserError: an option with an impossible value; (by init and apply) images of another size.
    """
    return from_linen(Vit(options.complete()))
