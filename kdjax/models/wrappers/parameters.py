"""Parameters of a network as features, for terms that apply a layer of one network to another."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables


def with_parameters(model: Model, paths: Mapping[str, str]) -> Model:
    """Add parameters to a network's features.

    Args:
      model: the network; its params receive the gradients of the terms that read these features.
      paths: feature -> path of a parameter, such as "fc/kernel". A path may be a pattern, such as
        "layer3_*/bn2/scale"; of several matches the last is used, 10 after 9.

    Raises:
      UserError: (by apply) no such parameter.

    >>> import jax, jax.numpy as jnp
    >>> from kdjax import models
    >>> model = models.build("mlp", num_classes=3, hidden=(4,))
    >>> model = with_parameters(model, {"kernel": "fc/kernel"})
    >>> batch = {"image": jnp.zeros((2, 4, 4, 1))}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> model.apply(variables, batch, train=False)[0].features["kernel"].shape
    (4, 3)
    """

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        outputs, stats = model.apply(variables, batch, train=train, key=key)
        exposed = {name: _look_up(variables.params, path) for name, path in paths.items()}
        return Outputs(outputs.logits, {**outputs.features, **exposed}), stats

    return Model(model.init, apply)


def _look_up(tree: PyTree, path: str) -> Array:
    for part in path.split("/"):
        if not isinstance(tree, Mapping):
            raise UserError(f"no parameter {path!r}; the path ends before {part!r}")
        names = [name for name in tree if fnmatchcase(name, part)]
        if not names:
            raise UserError(f"no parameter {path!r}; at {part!r} there are {', '.join(tree)}")
        tree = tree[max(names, key=lambda name: (len(name), name))]
    if isinstance(tree, Mapping):
        raise UserError(f"{path!r} is no parameter, but holds {', '.join(tree)}; name one of them")
    return tree
