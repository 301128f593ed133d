"""Critics by name: losses between two players with parameters of their own.

To add one, write a factory that returns a `terms.Critic` in a file of its own, and a line in
`_KINDS`. Every critic has the options `own_layer` and `peer_layer`, or `own_layers` and
`peer_layers`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.distill.critics import crd as _contrast
from kdjax.distill.critics import dependency as _dependency
from kdjax.distill.critics import regression as _regression
from kdjax.distill.critics.crd import contrast
from kdjax.distill.critics.dependency import DependencyOptions, dependency
from kdjax.distill.critics.regression import (
    correlation_congruence,
    factor_transfer,
    variational_information,
)
from kdjax.distill.terms import Critic, Scalar
from kdjax.errors import UserError

__all__ = [
    "DependencyOptions",
    "build",
    "contrast",
    "correlation_congruence",
    "dependency",
    "describe",
    "factor_transfer",
    "layers",
    "names",
    "term_scalars",
    "variational_information",
]

Labels = Callable[[], np.ndarray]


class _Kind(NamedTuple):
    factory: Callable[..., Critic]
    options: Callable[..., Any]  # its parameters are the options
    terms: Mapping[str, Mapping[str, Scalar]]


_KINDS = {
    "contrast": _Kind(contrast, contrast, _contrast.TERMS),
    "dependency": _Kind(dependency, DependencyOptions, _dependency.TERMS),
    "variational_information": _Kind(
        variational_information, variational_information, _regression.INFORMATION_TERMS
    ),
    "factor_transfer": _Kind(factor_transfer, factor_transfer, _regression.FACTOR_TERMS),
    "correlation_congruence": _Kind(
        correlation_congruence, correlation_congruence, _regression.CONGRUENCE_TERMS
    ),
}


def names() -> list[str]:
    """List the names of all critics."""
    return list(_KINDS)


def describe(name: str) -> str:
    """Return a one-line description of a critic."""
    return (_KINDS[name].factory.__doc__ or "").strip().split("\n")[0]


def term_scalars() -> dict[str, dict[str, float]]:
    """List the terms of all critics, with the defaults of their scalars."""
    return {
        term: {name: scalar.default for name, scalar in scalars.items()}
        for kind in _KINDS.values()
        for term, scalars in kind.terms.items()
    }


def build(name: str, options: Mapping[str, Any], labels: Labels) -> Critic:
    """Make a critic.

    Args:
      name: one of `names()`.
      options: the critic's options.
      labels: returns the labels of the training split, in the order of its ids; called only for
        critics that have a memory of the training set.

    Raises:
      UserError: an unknown name or option, or an invalid value.
    """
    known = default_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(f"critic {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    kind = _KINDS[name]
    if kind.options is not kind.factory:
        return kind.factory(kind.options(**options))
    if "labels" in inspect.signature(kind.factory).parameters:
        return kind.factory(labels(), **options)
    return kind.factory(**options)


def layers(name: str, options: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the features that a critic reads, of the first and second player."""
    values = {**default_options(name), **options}
    own, peer = (
        values.get(f"{side}_layers", (values.get(f"{side}_layer"),)) for side in ("own", "peer")
    )
    return tuple(own), tuple(peer)


def default_options(name: str) -> dict[str, Any]:
    """Return the options of a critic with their defaults.

    Raises:
      UserError: unknown name.
    """
    if name not in _KINDS:
        raise UserError(f"no critic is called {name!r}; there are {', '.join(_KINDS)}")
    parameters = inspect.signature(_KINDS[name].options).parameters
    return {key: value.default for key, value in parameters.items() if key != "labels"}
