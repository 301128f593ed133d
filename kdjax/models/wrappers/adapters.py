"""Adapters: small networks that map a student's features to the shape of a teacher's.

An adapter reads features of the network and adds new ones under its own name. It is trained with
the network, does not change the logits, and is dropped at export.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kdjax.errors import UserError, check_count, check_layer
from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import Mode, batch_norm, compute_dtype, conv_norm, linear
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables


class Adapter(NamedTuple):
    """A Flax module `module(features, train)`, the layers that it reads, and its features' names.

    `module` takes a tuple of arrays, one for each layer, and returns a tuple, one for each suffix.
    The name of a new feature is the adapter's name followed by the suffix.
    """

    module: nn.Module
    layers: tuple[str, ...]
    suffixes: tuple[str, ...] = ("",)


class Linear(nn.Module):
    """A linear map of the channels; see `linear_adapter`."""

    width: int

    @nn.compact
    def __call__(self, features: Sequence[Array], train: bool) -> tuple[Array]:
        """Map [batch, ..., channel] to [batch, ..., width]."""
        del train
        return (linear(self.width, name="linear")(features[0]),)


class NormDirection(nn.Module):
    """Batch norm, dropout and a linear map; see `norm_direction_adapter`."""

    width: int
    dropout: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: Sequence[Array], train: bool) -> tuple[Array]:
        """Map [batch, channel] to [batch, width]."""
        (x,) = features
        if x.ndim != 2:
            raise UserError(f"its layer is a map {x.shape[1:]}; choose a vector, such as 'pooled'")
        x = batch_norm(Mode(train, self.axis_name, jnp.float32), "bn")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return (linear(self.width, name="linear")(x),)


class Fusion(nn.Module):
    """Attention-based fusion of levels; see `fusion_adapter`."""

    widths: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    mid: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: Sequence[Array], train: bool) -> tuple[Array, ...]:
        """Map maps [batch, h_i, w_i, channel_i] to [batch, *sizes[i], widths[i]]."""
        mode, fused = Mode(train, self.axis_name, self.dtype), []
        mid = self.mid or min(512, features[-1].shape[-1])
        deeper = None
        for index in reversed(range(len(features))):
            level, width = index + 1, self.widths[index]
            x = features[index]
            is_vector = x.ndim == 2
            x = x[:, None, None] if is_vector else x
            x = conv_norm(mid, mode, (f"reduce{level}", f"reduce{level}_bn"), kernel=1)(x)
            if deeper is not None:
                deeper = nearest(deeper, x.shape[1:3])
                both = jnp.concatenate([x, deeper], axis=-1)
                attention = Conv(2, (1, 1), use_bias=True, dtype=self.dtype, name=f"gate{level}")
                gate = nn.sigmoid(attention(both))
                x = x * gate[..., :1] + deeper * gate[..., 1:]
            x = deeper = nearest(x, self.sizes[index])
            x = conv_norm(width, mode, (f"expand{level}", f"expand{level}_bn"))(x)
            fused.append(x[:, 0, 0] if is_vector and self.sizes[index] == (1, 1) else x)
        return tuple(reversed(fused))


def nearest(x: Array, size: tuple[int, ...]) -> Array:
    """Resize [batch, height, width, channel]: new pixel i of n is old pixel floor(i m / n) of m."""
    for axis, new in enumerate(size, start=1):
        old = x.shape[axis]
        if new % old:
            x = jnp.take(x, np.arange(new) * old // new, axis=axis)
        elif new != old:  # the gradient of `repeat` is a sum, that of `take` a scatter
            x = jnp.repeat(x, new // old, axis=axis)
    return x


def linear_adapter(*, layer: str, width: int) -> Adapter:
    """Project one layer: y = W x + b on its channels (on a map that is a 1x1 convolution).

    Args:
      layer: a feature [batch, ..., channel].
      width: channels of the new feature, [batch, ..., width].

    Raises:
      UserError: width below 1.

    >>> linear_adapter(layer="pooled", width=128).layers
    ('pooled',)
    """
    check_count("width", width)
    return Adapter(Linear(width), (layer,))


def norm_direction_adapter(
    *, layer: str, width: int, dropout: float = 0.5, axis_name: str | None = None
) -> Adapter:
    """Project a vector (ND): y = W dropout(batch_norm(x)) + b.

    Args:
      layer: a feature [batch, channel].
      width: of the new feature, [batch, width].
      dropout: fraction of the channels that a training step sets to 0, in [0, 1).
      axis_name: pmap axis over which batch norm is taken.

    Raises:
      UserError: width below 1, dropout outside [0, 1), or (by init) a layer that is a map.

    Source: Wang et al. 2023 (arXiv 2305.17007), for unequal widths; dropout as in the published
    code.

    >>> norm_direction_adapter(layer="pooled", width=128).module.dropout
    0.5
    """
    check_count("width", width)
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}; it must be >= 0 and < 1")
    return Adapter(NormDirection(width, dropout, axis_name), (layer,))


def fusion_adapter(
    *,
    layers: Sequence[str],
    widths: Sequence[int],
    sizes: Sequence[int | Sequence[int]],
    mid: int = 0,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Adapter:
    """Fuse levels from deep to shallow, and map each to the shape of a teacher's level (ReviewKD).

    With r_i = batch_norm(conv 1x1(x_i)) of `mid` channels, u_i the fused level i + 1 resized to
    r_i, and two gates (a, b) = sigmoid(conv 1x1([r_i, u_i])) per pixel:

        f_i = resize_i(a r_i + b u_i),    y_i = batch_norm(conv 3x3(f_i))

    resize_i takes the nearest pixels for the teacher's size; the deepest level has f = resize(r).

    Args:
      layers: shallow to deep; a map [batch, height, width, channel], or a vector, which counts as
        a map of 1 x 1.
      widths: channels of the teacher's levels.
      sizes: of the teacher's levels: height = width, or (height, width).
      mid: channels of the fused levels; 0 is those of the deepest layer, at most 512.
      dtype: of the computation.
      axis_name: pmap axis over which batch norm is taken.

    Returns:
      An Adapter with a feature "<name>1", "<name>2", ... for each of `layers`, of shape
      [batch, *sizes[i], widths[i]]; a vector of size 1 stays a vector [batch, widths[i]].

    Raises:
      UserError: not as many widths and sizes as layers, or one below 1.

    Source: Chen et al. 2021 (arXiv 2104.09044), section 3.2; resizing and `mid` as in the published
    code.

    >>> adapter = fusion_adapter(layers=("stage1", "pooled"), widths=(16, 64), sizes=(32, 1))
    >>> adapter.suffixes, adapter.module.sizes
    (('1', '2'), ((32, 32), (1, 1)))
    """
    if not layers or not len(layers) == len(widths) == len(sizes):
        raise UserError(
            f"layers has {len(layers)} names, widths {len(widths)} numbers and sizes {len(sizes)}; "
            "give one width and one size of the teacher for each layer"
        )
    pairs = tuple(tuple(size) if isinstance(size, Sequence) else (size, size) for size in sizes)
    for name, numbers in {"widths": [(width,) for width in widths], "sizes": pairs}.items():
        for number in (n for group in numbers for n in group):
            check_count(f"an entry of {name}", number)
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"sizes is {tuple(sizes)}; each must be a number or (height, width)")
    if mid:
        check_count("mid", mid)
    module = Fusion(tuple(widths), pairs, mid, compute_dtype(dtype), axis_name)  # type: ignore[arg-type]
    return Adapter(module, tuple(layers), tuple(str(i + 1) for i in range(len(layers))))


def with_adapters(model: Model, adapters: Mapping[str, Adapter]) -> Model:
    """Add the features of adapters to a model's, under the adapters' names.

    The network has the same initial values and dropout as without adapters.

    Args:
      model: the network whose features the adapters read.
      adapters: by name.

    Returns:
      A Model with params {"network": the model's, "adapters": {name: the adapter's}}, and stats of
      the same form.

    Raises:
      UserError: (by init) an adapter reads a layer that does not exist or does not suit it, or has
        the name of a layer.

    >>> from kdjax import models
    >>> model = models.build("mlp", num_classes=3, hidden=(4,))
    >>> model = with_adapters(model, {"wide": linear_adapter(layer="pooled", width=7)})
    >>> batch = {"image": jnp.zeros((2, 4, 4, 1))}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> model.apply(variables, batch, train=False)[0].features["wide"].shape
    (2, 7)
    """

    def init(key: Array, batch: Batch) -> Variables:
        network = model.init(key, batch)
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
        outputs, _ = jax.eval_shape(lambda v, b: model.apply(v, b, train=False), network, shapes)
        params, stats = {}, {}
        for name, adapter in adapters.items():
            inputs = _features(name, adapter, outputs.features)
            zeros = tuple(jnp.zeros((1, *x.shape[1:]), x.dtype) for x in inputs)
            try:
                collections = dict(adapter.module.init(_own_key(key, name), zeros, False))
            except UserError as error:
                raise UserError(f"adapters.{name}: {error}") from error
            params[name], stats[name] = collections.pop("params"), collections
        return Variables(
            {"network": network.params, "adapters": params},
            {"network": network.stats, "adapters": stats},
        )

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        network = Variables(variables.params["network"], variables.stats["network"])
        outputs, stats = model.apply(network, batch, train=train, key=key)
        features, adapter_stats = dict(outputs.features), {}
        for name, adapter in adapters.items():
            old = variables.stats["adapters"][name]
            arrays, updated = adapter.module.apply(
                {"params": variables.params["adapters"][name], **old},
                _features(name, adapter, outputs.features),
                train,
                rngs=None if key is None else {"dropout": _own_key(key, name)},
                mutable=list(old) if train else [],
            )
            names = (name + suffix for suffix in adapter.suffixes)
            features |= dict(zip(names, arrays, strict=True))
            adapter_stats[name] = {part: updated[part] for part in old} if train else old
        after = {"network": stats, "adapters": adapter_stats} if train else variables.stats
        return Outputs(outputs.logits, features), after

    return Model(init, apply)


def _own_key(key: Array, name: str) -> Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def _features(name: str, adapter: Adapter, features: Mapping[str, Any]) -> tuple[Any, ...]:
    for layer in adapter.layers:
        check_layer(f"adapters.{name}", layer, features)
    for suffix in adapter.suffixes:
        if name + suffix in features:
            known = ", ".join(sorted(features))
            raise UserError(f"adapters.{name}: {name + suffix!r} is a layer already ({known})")
    return tuple(features[layer] for layer in adapter.layers)
