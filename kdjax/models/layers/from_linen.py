"""Conversion of Flax modules to `kdjax.types.Model`."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.nnx.bridge import ToLinen

from kdjax.errors import UserError, check_entries
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

# arguments of a module's call that select the mode -> their value in training
_FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "update_stats": True,
    "deterministic": False,
    "use_running_average": False,
}
CACHE = "cache"  # a collection that evaluation updates
_TRACES = ("intermediates", "perturbations")  # collections that are not state


def from_linen(module: nn.Module, *, input_key: str = "image") -> Model:
    """Make a `Model` of a Flax module whose call is `module(x)` or `module(x, train=...)`.

    `x` is `batch[input_key]`. The module returns `Outputs` (put the input of the last linear
    layer under features["pooled"]) or an array of logits, without features. Collections other
    than "params" (such as "batch_stats") are the model's stats: training updates them, evaluation
    returns the same object, but updates a collection "cache" if there is one. The key of `apply` is
    that of dropout; keys of other random streams are derived from it. Evaluation uses no random
    numbers.

    In place of `train` the call may take `training`, `is_training`, `update_stats`, or
    `deterministic` and `use_running_average`, which mean the opposite. An NNX module in
    `flax.nnx.bridge.to_linen` may have none of them: its `eval()` is called in evaluation.

    `init` reads only the input's shape and type. Compile it: `jax.jit(model.init)(key, batch)`.

    Raises:
      UserError: it is not a linen module; the call has further required arguments; (by init or
        apply) the batch lacks `input_key`; the input does not fit the parameters; dropout or batch
        norm is in training mode in evaluation, because the call has no such argument; the module
        returns neither `Outputs` nor an array.

    Warns:
      UserWarning: (by init) dropout or batch norm is never in training mode, because the call has
        no such argument.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = from_linen(nn.Dense(3))
    >>> batch = {"image": jnp.ones((2, 4))}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> outputs, stats = model.apply(variables, batch, train=True)
    >>> outputs.logits.shape, stats
    ((2, 3), {})
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{module!r} is not an instance of flax.linen.Module; use from_nnx for an NNX module "
            "or its class"
        )
    name = _called_class(module).__name__

    def read(batch: Batch) -> Any:
        check_entries(name, (input_key,), batch)
        return batch[input_key]

    return from_reader(module, name, read)


def from_reader(module: nn.Module, name: str, read: Callable[[Batch], PyTree]) -> Model:
    """Make a `Model` of a Flax module that is called with `read(batch)`; see `from_linen`.

    `read` returns arrays or shapes; `name` is the network's name in errors.
    """
    flags = call_flags(_called_class(module).__call__, name)

    def zeros(x: Any) -> Array:
        return jnp.zeros((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))

    def init(key: Array, batch: Batch) -> Variables:
        x, modes = jax.tree.map(zeros, read(batch)), {}
        options: dict[str, Any] = {flag: not trains for flag, trains in flags.items()}
        with (
            _translate_errors(name, x, train=False),
            nn.intercept_methods(_evaluation_interceptor(modes)),
        ):
            collections = dict(module.init(_streams(key, "params"), x, **options))
        if not flags:
            _check_modes(name, modes)
        params = collections.pop("params", {})
        return Variables(params, {n: x for n, x in collections.items() if n not in _TRACES})

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        x = jax.tree.map(jnp.asarray, read(batch))
        tree = {"params": variables.params, **variables.stats}
        options: dict[str, Any] = {flag: trains == train for flag, trains in flags.items()}
        with _translate_errors(name, x, train=train):
            if train:
                rngs, mutable = _streams(key, "dropout"), list(variables.stats)
                returned, updated = module.apply(tree, x, rngs=rngs, mutable=mutable, **options)
                return to_outputs(returned, name), _check_shapes(name, variables.stats, updated)
            with nn.intercept_methods(_evaluation_interceptor({})):
                if CACHE in variables.stats:
                    returned, updated = module.apply(tree, x, mutable=[CACHE], **options)
                    return to_outputs(returned, name), {**variables.stats, **updated}
                return to_outputs(module.apply(tree, x, **options), name), variables.stats

    return Model(init, apply)


def _called_class(module: nn.Module) -> type:
    return module.nnx_class if isinstance(module, ToLinen) else type(module)  # type: ignore[return-value]


def call_flags(call: Callable[..., Any], name: str, known: Sequence[str] = ()) -> dict[str, bool]:
    """Return those of _FLAGS that a module's call takes; refuse other required arguments.

    `known`: names of other arguments that the caller passes.
    """
    _, *parameters = inspect.signature(call).parameters.values()
    for parameter in parameters[1:]:
        is_named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        passed = parameter.name in (*_FLAGS, *known)
        if is_named and parameter.default is parameter.empty and not passed:
            raise UserError(
                f"{name} must be called with {parameter.name!r} too, but a Model passes one entry "
                f"of the batch and {', '.join(_FLAGS)}: give it a default"
            )
    return {p.name: _FLAGS[p.name] for p in parameters if p.name in _FLAGS}


def _streams(key: Array | None, name: str) -> dict[str, Array]:
    """Return the keys of random streams: `key` for `name`, keys derived from it for other names.

    In place of a missing stream Flax uses "params" and NNX "default".
    """
    if key is None:
        return {}
    names = ("params", "dropout", "default")
    return {n: key if n == name else jax.random.fold_in(key, i) for i, n in enumerate(names)}


def _evaluation_interceptor(modes: dict[str, bool]) -> Callable[..., Any]:
    """Return an interceptor that calls `eval()` of NNX modules and records the modes of layers.

    `modes`: filled with class of a linen layer -> True if all its layers are in evaluation mode.
    """

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, ToLinen) and kwargs.get("nnx_method") is None:
            return call(*args, **{**kwargs, "nnx_method": _evaluate_nnx})
        for flag in ("deterministic", "use_running_average"):
            rate = getattr(layer, "rate", None) or getattr(layer, "dropout_rate", None)
            if hasattr(layer, flag) and (rate or flag == "use_running_average"):
                signature = inspect.signature(type(layer).__call__)
                passed = signature.bind_partial(layer, *args, **kwargs).arguments.get(flag)
                mode = getattr(layer, flag) if passed is None else passed
                modes[type(layer).__name__] = bool(mode) and modes.get(type(layer).__name__, True)
        return call(*args, **kwargs)

    return intercept


def _evaluate_nnx(module: Any, *args: Any, **kwargs: Any) -> Any:
    module.eval()
    return module(*args, **kwargs)


def _check_modes(name: str, modes: Mapping[str, bool]) -> None:
    """Refuse layers that evaluation leaves in training mode; warn of the opposite."""
    remedy = f"let {name}.__call__ take `train` and pass it on to them"
    if training := [layer for layer, evaluates in modes.items() if not evaluates]:
        raise UserError(f"{name}: {', '.join(training)} would train in evaluation too: {remedy}")
    if modes:
        layers = ", ".join(modes)
        warnings.warn(f"{name}: {layers} will evaluate in training too: {remedy}", stacklevel=3)


def _check_shapes(name: str, before: PyTree, after: PyTree) -> dict[str, Any]:
    for collection, tree in before.items():
        old, new = (jax.tree.map(jnp.shape, jax.tree.leaves(x)) for x in (tree, after[collection]))
        if old != new:
            raise UserError(
                f"{name}: the collection {collection!r} changes its shape in training, so that it "
                'cannot be a state: sow to "intermediates", or overwrite the value'
            )
    return {collection: after[collection] for collection in before}


@contextmanager
def _translate_errors(name: str, x: PyTree, *, train: bool) -> Iterator[None]:
    try:
        yield
    except flax.errors.InvalidRngError as error:
        if train:
            raise UserError(f"{name}: dropout in training needs a key") from error
        raise UserError(f"{name} draws random numbers in evaluation: use none there") from error
    except flax.errors.FlaxError as error:
        line = " ".join(str(error).split(" (http")[0].split()).rstrip(".")
        if not isinstance(error, flax.errors.ScopeParamShapeError):
            raise UserError(f"{name}: {line}") from error
        misfit = "the parameters do not fit"
        if not isinstance(x, Mapping):
            misfit = f"an input of shape {x.shape} does not fit the parameters"
        raise UserError(f"{name}: {misfit}: {line}") from error
    except ValueError as error:
        if "must be passed to the constructor or at call time" not in str(error):
            raise
        raise UserError(f"{name}: {error} Let its call take `train` and pass it on") from error


def to_outputs(returned: Any, name: str) -> Outputs:
    """Convert a module's result, `Outputs` or logits, to `Outputs`; refuse other types."""
    if isinstance(returned, Outputs):
        return Outputs(returned.logits.astype(jnp.float32), dict(returned.features))
    if isinstance(returned, tuple | list | Mapping):
        raise UserError(f"{name} returns a {type(returned).__name__}: return Outputs or logits")
    return Outputs(returned.astype(jnp.float32), {})
