"""From the `ramp` of a term in a config to a function of the step."""

from collections.abc import Callable, Mapping
from typing import Any

from kdjax.distill import terms
from kdjax.types import UserError

_RAMPS: Mapping[str, Callable[[Mapping[str, Any]], terms.Ramp]] = {
    "linear": lambda said: terms.linear_ramp(_steps(said)),
    "sigmoid": lambda said: terms.sigmoid_ramp(_steps(said)),
    "cosine": lambda said: terms.cosine_ramp(_steps(said)),
    "piecewise": lambda said: terms.piecewise_ramp(said["boundaries"], _factors(said)),
}


def make_ramp(where: str, said: Mapping[str, Any]) -> terms.Ramp | None:
    """The ramp that a term's table names; None if it names none.

    Args:
      where: the term's key, for errors without a key of their own.
      said: {"name", "steps", "boundaries", "factors"}.

    Raises:
      UserError: an unknown name, or numbers that make no ramp.
    """
    name = said["name"]
    if name is None:
        return None
    if name not in _RAMPS:
        raise UserError(f"{where}.ramp.name is {name!r}; there are {', '.join(sorted(_RAMPS))}")
    try:
        return _RAMPS[name](said)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _steps(said: Mapping[str, Any]) -> int:
    if said["steps"] < 1:
        raise UserError(f"ramp.steps is {said['steps']}; it must be >= 1")
    return said["steps"]


def _factors(said: Mapping[str, Any]) -> tuple[float, ...]:
    boundaries, factors = tuple(said["boundaries"]), tuple(said["factors"])
    if len(factors) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise UserError(
            f"ramp.boundaries is {boundaries} and ramp.factors {factors}; boundaries must rise, "
            "and there must be one factor more than boundaries"
        )
    return factors
