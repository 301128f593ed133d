"""Critics by name: comparisons of two players that have parameters of their own.

To add one, write a factory that returns a `terms.Critic` in a file of its own, and a line in
`_KINDS`. Every factory has the options `own_layer` and `peer_layer`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.distill.critics import crd as _contrast
from kdjax.distill.critics import dependency as _dependency
from kdjax.distill.critics.crd import contrast
from kdjax.distill.critics.dependency import dependency
from kdjax.distill.terms import Critic, Scalar
from kdjax.types import UserError

__all__ = ["build", "contrast", "dependency", "describe", "layers", "names", "term_scalars"]

Labels = Callable[[], np.ndarray]


class _Kind(NamedTuple):
    factory: Callable[..., Critic]
    terms: Mapping[str, Mapping[str, Scalar]]


_KINDS = {
    "contrast": _Kind(contrast, _contrast.TERMS),
    "dependency": _Kind(dependency, _dependency.TERMS),
}


def names() -> list[str]:
    """List the critics that `build` knows."""
    return list(_KINDS)


def describe(name: str) -> str:
    """Say in a line what a critic does."""
    return (_KINDS[name].factory.__doc__ or "").strip().split("\n")[0]


def term_scalars() -> dict[str, dict[str, float]]:
    """The terms of all critics, with the defaults of their scalars."""
    return {
        term: {name: scalar.default for name, scalar in scalars.items()}
        for kind in _KINDS.values()
        for term, scalars in kind.terms.items()
    }


def build(name: str, options: Mapping[str, Any], labels: Labels) -> Critic:
    """Make a critic.

    Args:
      name: one of `names()`.
      options: of its factory.
      labels: returns the labels of the training split, in the order of its ids; called by critics
        that remember the training set.

    Raises:
      UserError: unknown name or option, or what the factory refuses.
    """
    known = _options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(f"critic {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    factory = _KINDS[name].factory
    if "labels" in inspect.signature(factory).parameters:
        return factory(labels(), **options)
    return factory(**options)


def layers(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """The feature of each of the two players that a critic looks at."""
    found = {**_options(name), **options}
    return found["own_layer"], found["peer_layer"]


def _options(name: str) -> dict[str, Any]:
    if name not in _KINDS:
        raise UserError(f"no critic is called {name!r}; there are {', '.join(_KINDS)}")
    parameters = inspect.signature(_KINDS[name].factory).parameters
    return {key: value.default for key, value in parameters.items() if key != "labels"}
