"""Which arrays a closed form computes with, and the refusals that all of them share.

Python numbers, lists and numpy arrays are computed by numpy in float64, whatever JAX's precision;
a JAX array among the arguments (traced or not) makes the same formula a JAX computation, which
jit, vmap and grad accept. Checks look at concrete values only: a traced one passes unseen.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.core import Tracer
from jax.typing import ArrayLike

from kdjax.types import Array, UserError

__all__ = [
    "Numbers",
    "Result",
    "backend",
    "check_fraction",
    "check_not_negative",
    "check_positive",
    "check_true",
    "check_whole",
    "floats",
]

Numbers = ArrayLike | Sequence[Any]  # what a closed form takes
Result = Array | np.ndarray | np.number  # what it returns: JAX in, JAX out; else numpy


def backend(*values: Any) -> tuple[Any, Any]:
    """Return (jax.numpy, jax.scipy.special) if any value is a JAX array, else numpy's pair."""
    if any(isinstance(value, jax.Array) for value in values):
        return jnp, jax.scipy.special
    return np, scipy.special


def floats(xp: Any, value: Any) -> Any:
    """`value` as an array of `xp`: float64 in numpy, at least float32 in JAX."""
    if xp is np:
        return np.asarray(value, np.float64)
    array = jnp.asarray(value)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _refuse_unless(name: str, value: Any, right: Any, rule: str) -> None:
    if isinstance(value, Tracer):
        return
    array = np.asarray(value, np.float64)
    wrong = array[~right(array)]  # NaN is never right
    if wrong.size:
        raise UserError(f"{name}: must be {rule}, got {wrong.flat[0]:g}")


def check_positive(name: str, value: Any) -> None:
    """Refuse anything but finite numbers > 0.

    Raises:
        UserError: naming the argument and the first wrong value.
    """
    _refuse_unless(name, value, lambda v: (v > 0) & (v < np.inf), "finite and > 0")


def check_not_negative(name: str, value: Any, *, infinite: bool = False) -> None:
    """Refuse negative numbers and NaN, and infinity unless `infinite`.

    Raises:
        UserError: naming the argument and the first wrong value.
    """
    if infinite:
        _refuse_unless(name, value, lambda v: v >= 0, ">= 0")
    else:
        _refuse_unless(name, value, lambda v: (v >= 0) & (v < np.inf), "finite and >= 0")


def check_fraction(name: str, value: Any) -> None:
    """Refuse numbers outside [0, 1].

    Raises:
        UserError: naming the argument and the first wrong value.
    """
    _refuse_unless(name, value, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse anything but whole numbers >= `least`.

    Raises:
        UserError: naming the argument and the first wrong value.
    """
    rule = f"a whole number >= {least}"
    whole = lambda v: (v >= least) & (v < np.inf) & (v == np.floor(v))  # noqa: E731
    _refuse_unless(name, value, whole, rule)


def check_true(name: str, value: bool, why: str) -> None:
    """Refuse a caller who says that an assumption of the formula is not met.

    Raises:
        UserError: naming the assumption and why the formula needs it.
    """
    if not value:
        raise UserError(f"{name}: the formula does not hold without it: {why}")
