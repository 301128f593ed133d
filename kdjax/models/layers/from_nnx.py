"""Conversion of Flax NNX modules to `kdjax.types.Model`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdjax.errors import UserError, check_entries
from kdjax.models.layers.from_linen import call_flags, to_outputs
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

Arrays = dict[tuple[Any, ...], Any]  # path of a variable inside a module -> array or shape

# kinds of variables in the order of _State; all others are not state
_FILTERS = (nnx.RngKey, nnx.RngState, nnx.Param, nnx.Not((nnx.Intermediate, nnx.Perturbation)))


class _State(NamedTuple):
    """The arrays or shapes of a module; `keys` and `counts` are those of its random streams."""

    keys: Arrays
    counts: Arrays
    params: Arrays
    stats: Arrays


def from_nnx(network: Any, *, input_key: str = "image") -> Model:
    """Make a `Model` of a Flax NNX module, or of a factory `network(rngs)` that builds one.

    A factory, such as the module's class, draws new weights from the key of `init`. A module keeps
    its own arrays, such as pre-trained weights, for any key.

    `nnx.Param` variables are the model's params. All others but random streams and intermediates
    (`nnx.BatchStat`, ...) are its stats: training updates them, evaluation returns the same object.
    `train()` or `eval()` of the module is called first. The key of `apply` seeds all its random
    streams, so that dropout depends only on the key.

    The module is called with `batch[input_key]` and, if its call takes them, the arguments `train`,
    ... of `from_linen` and `rngs`. It returns logits or `Outputs`. Values that it sows as
    `nnx.Intermediate` are features too: `self.sow(nnx.Intermediate, "pooled", x)` is "pooled", in a
    submodule "block/pooled"; of several values under one name the i-th is "pooled/i".

    Raises:
      UserError: the network is neither a module nor a factory; its call has further required
        arguments; its state holds a value that is not an array; (by init or apply) the batch lacks
        `input_key`; training draws random numbers without a key; evaluation draws any; a state
        changes its shape.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> batch = {"image": jnp.ones((2, 4))}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> outputs, stats = model.apply(variables, batch, train=True)
    >>> outputs.logits.shape, stats
    ((2, 3), {})
    """
    make = _factory(network)
    module_class, graph, shapes = _trace(make)
    name = module_class.__name__
    flags = call_flags(module_class.__call__, name, known=("rngs",))
    takes_rngs = "rngs" in inspect.signature(module_class.__call__).parameters

    def init(key: Array, batch: Batch) -> Variables:
        check_entries(name, (input_key,), batch)
        state = _state(make(key))
        variables = Variables(_nested(state.params), _nested(state.stats))
        # the arrays of an instance stay with it: a step may donate those of the variables
        return jax.tree.map(lambda x: jnp.array(x, copy=True), variables)

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        check_entries(name, (input_key,), batch)
        seed = jax.random.key(0) if key is None or not train else key
        module = nnx.merge(graph, _flat_state(shapes, variables, seed))
        (module.train if train else module.eval)()
        options: dict[str, Any] = {flag: trains == train for flag, trains in flags.items()}
        options |= {"rngs": nnx.Rngs(seed)} if takes_rngs else {}
        call = nnx.capture(lambda m, x: m(x, **options), nnx.Intermediate)
        returned, sown = call(module, jnp.asarray(batch[input_key]))
        state = _state(module)
        _check_draws(name, state.counts, train=train, key=key)
        outputs = to_outputs(returned, name)
        outputs = outputs._replace(features={**_features(sown), **outputs.features})
        return outputs, _new_stats(name, shapes, state) if train else variables.stats

    return Model(init, apply)


def _factory(network: Any) -> Callable[[Array], Any]:
    """Return the function from a key to a module."""
    if isinstance(network, nnx.Module):
        return lambda key: network
    if not callable(network):
        raise UserError(
            f"{network!r} is neither an NNX module nor a function of rngs that makes one"
        )
    signature = constructor_signature(network)
    name = getattr(network, "__name__", repr(network))
    by_name = "rngs" in signature.parameters
    try:
        signature.bind(**{"rngs": 0}) if by_name else signature.bind(0)
    except TypeError as error:
        raise UserError(
            f"{name} must be called with rngs alone ({error}): bind the rest"
        ) from error
    return lambda key: network(rngs=nnx.Rngs(key)) if by_name else network(nnx.Rngs(key))


def constructor_signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function, or of the class of a module, whose metaclass hides it."""
    if not isinstance(factory, type):
        return inspect.signature(factory)
    own = inspect.signature(factory.__init__)
    return own.replace(parameters=[*own.parameters.values()][1:])


def _trace(make: Callable[[Array], Any]) -> tuple[type, Any, _State]:
    """Return a module's class, its static part and the shapes of its state; computes nothing."""
    classes: list[type] = []

    def trace(key: Array) -> Any:
        module = make(key)
        if not isinstance(module, nnx.Module):
            raise UserError(f"the factory makes a {type(module).__name__}, not a flax.nnx.Module")
        classes.append(type(module))
        graph, *states = nnx.split(module, *_FILTERS, ...)
        _check_arrays(type(module).__name__, states)
        return graph, states[: len(_FILTERS)]

    graph, states = jax.eval_shape(trace, jax.random.key(0))
    return classes[0], graph, _State(*map(_flat, states))


def _state(module: Any) -> _State:
    _, *states = nnx.split(module, *_FILTERS, ...)
    return _State(*map(_flat, states[: len(_FILTERS)]))


def _flat(state: Any) -> Arrays:
    return {path: _value(leaf) for path, leaf in nnx.to_flat_state(state)}


def _value(leaf: Any) -> Any:
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _check_arrays(name: str, states: Sequence[Any]) -> None:
    for state in states:
        for path, value in _flat(state).items():
            if not isinstance(value, Array | np.ndarray):
                raise UserError(
                    f"{name}.{'.'.join(map(str, path))} holds a {type(value).__name__}, but the "
                    "state of a network is arrays: keep it in a plain attribute"
                )


def _nested(flat: Arrays) -> dict[str, Any]:
    """Return nested dicts, whose keys are strings, as in files."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(str(part), {})
        node[str(path[-1])] = value
    return tree


def _lookup(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[str(part)]
    return tree


def _flat_state(shapes: _State, variables: Variables, seed: Array) -> Any:
    """Return the state of a module: its variables, and random streams that start from a seed."""
    flat = {path: _lookup(variables.params, path) for path in shapes.params}
    flat |= {path: _lookup(variables.stats, path) for path in shapes.stats}
    for number, (path, key) in enumerate(shapes.keys.items()):
        stream = jax.random.fold_in(seed, number)
        flat[path] = jax.random.split(stream, key.shape) if key.shape else stream
    # a numpy count stays a concrete number while JAX traces, which `_check_draws` needs
    flat |= {path: np.zeros(count.shape, count.dtype) for path, count in shapes.counts.items()}
    return nnx.from_flat_state(flat)


def _check_draws(name: str, counts: Arrays, *, train: bool, key: Array | None) -> None:
    has_draws = any(isinstance(n, np.ndarray | np.number) and np.any(n) for n in counts.values())
    if has_draws and not train:
        raise UserError(f"{name} draws random numbers in evaluation: use none there")
    if has_draws and key is None:
        raise UserError(f"{name}: dropout in training needs a key")


def _features(sown: Any) -> dict[str, Any]:
    """Return sown values by name: "pooled", "block/pooled", or, of several, "pooled/0", ..."""
    features = {}
    for path, values in _flat(sown).items():
        name = "/".join(map(str, path))
        if not isinstance(values, tuple) or len(values) == 1:
            features[name] = values[0] if isinstance(values, tuple) else values
        else:
            features |= {f"{name}/{number}": value for number, value in enumerate(values)}
    return features


def _new_stats(name: str, shapes: _State, state: _State) -> dict[str, Any]:
    for path in {**shapes.stats, **state.stats}:
        old, new = (jnp.shape(s.stats[path]) if path in s.stats else None for s in (shapes, state))
        if old != new:
            raise UserError(
                f"{name}: {'.'.join(map(str, path))} is {old} before a step and {new} after it, so "
                "that it cannot be a state"
            )
    return _nested(state.stats)
