"""Random points of a sweep: a scrambled Sobol sequence through distributions of the values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import qmc

from kdjax.errors import UserError, is_number
from kdjax.train import sweep

_DISTRIBUTIONS = ("uniform", "log_uniform", "choice")


def members(table: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """List the members of a random sweep: every drawn point with every seed.

    Args:
      table: "seed" -> a list of seeds, and the table of `draw`.
      count: the number of points.
      seed: of the draw.

    Raises:
      UserError: no list of seeds, a seed twice, and the errors of `draw`.
    """
    seeds = sweep.members({"seed": table["seed"]})
    points = draw({p: entry for p, entry in table.items() if p != "seed"}, count, seed)
    return [{**start, **point} for start in seeds for point in points]


def draw(table: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Draw points of a sweep.

    Args:
      table: dotted path -> a list of values, of which each is as probable as the others, or one of
        {"uniform": (low, high)}, {"log_uniform": (low, high)}, {"choice": values}.
      count: the number of points; more points begin with the same ones.
      seed: of the scrambling.

    Returns:
      The points, without repetitions; one empty point for an empty table. Numbers between bounds
      have six significant digits, as in reports, so that a copied value repeats the member.

    Raises:
      UserError: an unknown distribution, low >= high, or `log_uniform` with low <= 0.
    """
    if count < 1:
        raise UserError(f"sweep_members is {count}; it must be >= 1")
    spread = {path: _distribution(path, entry) for path, entry in table.items()}
    if not spread:
        return [{}]
    sequence = qmc.Sobol(len(spread), scramble=True, rng=seed)
    rows = sequence.random_base2((count - 1).bit_length())[:count]
    points = [
        {path: _quantile(*spread[path], float(u)) for path, u in zip(spread, row, strict=True)}
        for row in rows
    ]
    return list({repr(point): point for point in points}.values())


def _distribution(path: str, entry: Any) -> tuple[str, Sequence[Any]]:
    """Return the name and the arguments of a distribution, checked."""
    table = entry if isinstance(entry, Mapping) else {"choice": entry}
    if len(table) != 1 or not set(table) <= set(_DISTRIBUTIONS):
        raise UserError(
            f"sweep.{path} is {entry!r}; it must be a list or one of "
            f"{', '.join(_DISTRIBUTIONS)}, such as {{'log_uniform': (0.001, 0.1)}}"
        )
    ((name, values),) = table.items()
    where = f"sweep.{path}.{name}" if isinstance(entry, Mapping) else f"sweep.{path}"
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise UserError(f"{where} is {values!r}; it must be a list of one value or more")
    if name == "choice":
        return name, values
    if len(values) != 2 or not all(is_number(v) and math.isfinite(v) for v in values):
        raise UserError(f"{where} is {values!r}; it must be two finite numbers, (low, high)")
    low, high = values
    if low >= high:
        raise UserError(f"{where} is {values!r}; low must be below high")
    if name == "log_uniform" and low <= 0:
        raise UserError(f"{where} is {values!r}; low must be > 0")
    return name, values


def _quantile(name: str, values: Sequence[Any], u: float) -> Any:
    """Return the quantile of a distribution at `u` in [0, 1)."""
    if name == "choice":
        return values[int(u * len(values))]
    low, high = map(float, values)
    if name == "log_uniform":
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        value = low + u * (high - low)
    return min(max(float(f"{value:g}"), low), high)
