"""What transformers share: attention over masked tokens, dropout, activations, checked sizes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kdjax.types import Array, UserError

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "Dropout",
    "attend",
    "check_rate",
    "check_sizes",
    "drop",
    "gelu",
    "key_mask",
    "per_token",
    "token_logits",
]

_FAR = -1e30  # score of a masked key; finite, so that a row without keys stays finite


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """The exact GELU, x Phi(x), through erf.

    `jax.nn.gelu` goes through erfc, which keeps the relative error of values near -10; here the
    absolute error is 1e-7 |x|. On the CPU value and gradient cost half as much.

    >>> [round(float(gelu(jnp.float32(x))), 4) for x in (0, 1)]
    [0.0, 0.8413]
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Only x is kept for the way back; what automatic differentiation keeps fills the cache.
    (x,), (t,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * x * x) * jnp.asarray(1 / np.sqrt(2 * np.pi), x.dtype)
    return x * cdf, t * (cdf + x * density)


def _normal_cdf(x: Array) -> Array:
    return (0.5 + 0.5 * jax.lax.erf(x * jnp.asarray(np.sqrt(0.5), x.dtype))).astype(x.dtype)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {  # by the reference library's names
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


def drop(x: Array, rate: float, key: Array) -> Array:
    """Set each number to 0 with probability `rate` and divide the others by the rest.

    Sixteen random bits a number, so that drawing costs half: the probability is `rate` rounded to
    a multiple of 2^-16, and the divisor is exact for it.
    """
    kept = max(1, round((1 - rate) * 2**16))
    words = jax.random.bits(key, (-(-x.size // 2),), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size]
    keep = halves.reshape(x.shape).astype(jnp.uint32) < kept
    return jnp.where(keep, x * jnp.asarray(2**16 / kept, x.dtype), 0)


class Dropout(nn.Module):
    """`drop` in training, with a key from the stream "dropout"."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Return x, or x thinned."""
        if not train or self.rate == 0.0:
            return x
        return drop(x, self.rate, self.make_rng("dropout"))


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float = 1.0,
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """Average the values by softmax(scale q k^T + bias), taken in float32.

    `jax.nn.dot_product_attention` has no dropout, and its layout costs the CPU 1.8 times as much:
    here heads come before tokens, and the scale goes on the queries.

    Args:
      query: [batch, targets, heads, width].
      key: [batch, sources, heads, width].
      value: like `key`.
      mask: bool, broadcast to [batch, heads, targets, sources]; False is never looked at. A
        target without any source gets some finite average.
      bias: likewise, float32.
      scale: of the scores: width^-0.5, or 1.
      dropout: of the weights.

    Returns:
      [batch, targets, heads, width].

    >>> q = jnp.ones((1, 2, 1, 4)); v = jnp.arange(8.0).reshape(1, 2, 1, 4)
    >>> attend(q, q, v, mask=jnp.array([True, False]).reshape(1, 1, 1, 2))[0, 0, 0].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    scaled = query if scale == 1.0 else query * jnp.asarray(scale, query.dtype)
    scores = jnp.matmul(
        scaled.transpose(0, 2, 1, 3),
        key.transpose(0, 2, 3, 1),
        preferred_element_type=jnp.float32,
    )
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, _FAR)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return (weights @ value.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)


def per_token(dense: nn.Dense, x: Array) -> Array:
    """Apply a linear layer to [..., width], as one matrix of tokens.

    On the CPU the gradient of a layer on [batch, length, width] costs a third more.
    """
    return dense(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Multi-head attention with its four linear maps."""

    num_heads: int
    head_width: int
    scale: float
    use_bias: bool = True  # of query, key and value
    out_bias: bool = True
    dropout: float = 0.0
    dtype: Any = None
    init: Callable[..., Any] = nn.initializers.normal(0.02)
    query_init: Callable[..., Any] | None = None
    out_init: Callable[..., Any] | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        context: Array | None = None,
        *,
        mask: Array | None = None,
        bias: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Map [batch, targets, width] to the same shape, looking at `context` or at `x`."""
        source = x if context is None else context

        def heads(name: str, y: Array, init: Any) -> Array:
            inner = self.num_heads * self.head_width
            dense = nn.Dense(
                inner, use_bias=self.use_bias, kernel_init=init, dtype=self.dtype, name=name
            )
            return per_token(dense, y).reshape(*y.shape[:-1], self.num_heads, self.head_width)

        query = heads("query", x, self.query_init or self.init)
        key = heads("key", source, self.init)
        value = heads("value", source, self.init)
        thin = Dropout(self.dropout)
        used = train and self.dropout > 0
        mixed = attend(
            query,
            key,
            value,
            mask=mask,
            bias=bias,
            scale=self.scale,
            dropout=(lambda weights: thin(weights, train)) if used else None,
        )
        out = nn.Dense(
            x.shape[-1],
            use_bias=self.out_bias,
            kernel_init=self.out_init or self.init,
            dtype=self.dtype,
            name="out",
        )
        return per_token(out, mixed.reshape(*x.shape[:-1], self.num_heads * self.head_width))


def key_mask(attention_mask: Array) -> Array:
    """Turn a mask of real tokens [batch, length] into one of keys, bool [batch, 1, 1, length]."""
    return (attention_mask > 0)[:, None, None, :]


def token_logits(x: Array, table: Array, dtype: Any) -> Array:
    """Logits of tokens, x table^T in float32: [..., width] and [vocabulary, width]."""
    computed = dtype or x.dtype
    return jnp.einsum(
        "...w,vw->...v",
        x.astype(computed),
        table.astype(computed),
        preferred_element_type=jnp.float32,
    )


def check_sizes(model: str, **sizes: Any) -> None:
    """Refuse sizes of a network that are no whole numbers of at least 1.

    Raises:
      UserError: names the model, the size and its value.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{model}: {name} is {value!r}: use a whole number of at least 1")


def check_rate(model: str, **rates: Any) -> None:
    """Refuse dropout rates outside [0, 1).

    Raises:
      UserError: names the model, the rate and its value.
    """
    for name, value in rates.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise UserError(f"{model}: {name} is {value!r}: use a number in [0, 1)")
