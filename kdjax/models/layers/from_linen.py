"""Conversion of Flax modules to `kdjax.types.Model`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import jax
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
    name = type(module).__name__

    def read(batch: Batch) -> Any:
        if input_key not in batch:
            raise UserError(f'{name} reads batch["{input_key}"], but the batch has {sorted(batch)}')
        return batch[input_key]

    return from_reader(module, name, read)


def from_reader(module: nn.Module, name: str, read: Callable[[Batch], PyTree]) -> Model:
    """Make a `Model` of a Flax module that is called with `read(batch)`; see `from_linen`.

    `read` returns arrays, or shapes; `name` is the network's in errors.
    """
    takes_train = "train" in inspect.signature(type(module).__call__).parameters

    def flag(train: bool) -> dict[str, Any]:
        return {"train": train} if takes_train else {}

    def zeros(x: Any) -> Array:
        return jnp.zeros((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))

    def init(key: Array, batch: Batch) -> Variables:
        collections = dict(module.init(key, jax.tree.map(zeros, read(batch)), **flag(False)))
        params = collections.pop("params", {})
        collections.pop("intermediates", None)
        return Variables(params, collections)

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        x = jax.tree.map(jnp.asarray, read(batch))
        tree = {"params": variables.params, **variables.stats}
        options = {"rngs": None if key is None else {"dropout": key}, **flag(train)}
        try:
            if train and variables.stats:
                mutable = list(variables.stats)
                returned, updated = module.apply(tree, x, mutable=mutable, **options)
                stats = {collection: updated[collection] for collection in mutable}
            else:
                returned, stats = module.apply(tree, x, **options), variables.stats
        except flax.errors.ScopeParamShapeError as error:
            what = str(error).split(" (http")[0].rstrip(".")
            misfit = "the parameters do not fit"
            if not isinstance(x, Mapping):
                misfit = f"an input of shape {x.shape} does not fit the parameters"
            raise UserError(f"{name}: {misfit}: {what}") from error
        except flax.errors.InvalidRngError as error:
            raise UserError(f"{name}: dropout in training needs a key") from error
        return _outputs(returned, name), stats

    return Model(init, apply)


def _outputs(returned: Any, name: str) -> Outputs:
    if isinstance(returned, Outputs):
        return Outputs(returned.logits.astype(jnp.float32), dict(returned.features))
    if isinstance(returned, tuple | list | Mapping):
        raise UserError(f"{name} returns a {type(returned).__name__}: return Outputs or logits")
    return Outputs(returned.astype(jnp.float32), {})
