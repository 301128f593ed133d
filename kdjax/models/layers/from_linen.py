"""Conversion of Flax modules to `kdjax.types.Model`."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.errors
import jax.numpy as jnp
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables


def from_linen(module: nn.Module, *, input_key: str = "image") -> Model:
    """Make a `Model` of a Flax module whose call is `module(x)` or `module(x, train=...)`.

    `x` is `batch[input_key]`. The module returns `Outputs` (put the input of the last linear
    layer under features["pooled"]) or an array of logits, without features. Collections other
    than "params" (such as "batch_stats") are the model's stats: training updates them,
    evaluation returns the same object. A key, if given, is that of dropout.

    `init` reads only the input's shape and type. Compile it: `jax.jit(model.init)(key, batch)`.

    Raises:
      UserError: (by init or apply) the batch lacks `input_key`; the input does not fit the
        parameters; the module returns something else.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = from_linen(nn.Dense(3))
    >>> batch = {"image": jnp.ones((2, 4))}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> outputs, stats = model.apply(variables, batch, train=True)
    >>> outputs.logits.shape, stats
    ((2, 3), {})
    """
    takes_train = "train" in inspect.signature(type(module).__call__).parameters
    name = type(module).__name__

    def init(key: Array, batch: Batch) -> Variables:
        x = _input(batch, input_key, name)
        flag: dict[str, Any] = {"train": False} if takes_train else {}
        zeros = jnp.zeros((1, *x.shape[1:]), x.dtype)
        collections = dict(module.init(key, zeros, **flag))
        params = collections.pop("params", {})
        collections.pop("intermediates", None)
        return Variables(params, collections)

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        x = jnp.asarray(_input(batch, input_key, name))
        tree = {"params": variables.params, **variables.stats}
        flag: dict[str, Any] = {"train": train} if takes_train else {}
        rngs = None if key is None else {"dropout": key}
        try:
            if train and variables.stats:
                mutable = list(variables.stats)
                returned, updated = module.apply(tree, x, rngs=rngs, mutable=mutable, **flag)
                stats = {collection: updated[collection] for collection in mutable}
            else:
                returned, stats = module.apply(tree, x, rngs=rngs, **flag), variables.stats
        except flax.errors.ScopeParamShapeError as error:
            raise UserError(_misfit(name, input_key, x.shape, error)) from error
        return _outputs(returned, name), stats

    return Model(init, apply)


def _input(batch: Batch, key: str, name: str) -> Any:
    if key not in batch:
        raise UserError(f'{name} reads batch["{key}"], but the batch has {sorted(batch)}')
    return batch[key]


def _outputs(returned: Any, name: str) -> Outputs:
    if isinstance(returned, Outputs):
        return Outputs(returned.logits.astype(jnp.float32), dict(returned.features))
    if isinstance(returned, tuple | list | Mapping):
        raise UserError(f"{name} returns a {type(returned).__name__}: return Outputs or logits")
    return Outputs(returned.astype(jnp.float32), {})


def _misfit(name: str, key: str, shape: tuple[int, ...], error: Exception) -> str:
    what = str(error).split(" (http")[0].rstrip(".")
    return f'{name}: batch["{key}"] of shape {shape} does not fit the parameters: {what}'
