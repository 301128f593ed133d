"""Selection of numpy or JAX for the closed forms, and the argument checks that they share.

Python numbers, lists and numpy arrays are computed by numpy in float64, whatever JAX's precision;
a JAX array among the arguments (traced or not) makes the same formula a JAX computation, which
jit, vmap and grad accept. Traced values pass the checks unchecked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.core import Tracer
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.types import Array

Numbers = ArrayLike | Sequence[Any]  # argument of a closed form
Result = Array | np.ndarray | np.number  # of a closed form: JAX in, JAX out; else numpy


def backend(*values: Any) -> tuple[Any, Any]:
    """Return (jax.numpy, jax.scipy.special) if any value is a JAX array, else numpy's pair."""
    if any(isinstance(value, jax.Array) for value in values):
        return jnp, jax.scipy.special
    return np, scipy.special


def floats(xp: Any, value: Any) -> Any:
    """Return `value` as an array of `xp`: float64 in numpy, at least float32 in JAX."""
    if xp is np:
        return np.asarray(value, np.float64)
    array = jnp.asarray(value)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def arrays(*values: Any) -> tuple[Any, ...]:
    """Return the numpy that fits the values, then these as its float arrays."""
    xp, _ = backend(*values)
    return xp, *(floats(xp, value) for value in values)


def root(xp: Any, value: Any) -> Any:
    """Return the square root of numbers >= 0, with gradient 0 at 0."""
    # The derivative of sqrt at 0 is infinite: it must not be evaluated there.
    return xp.where(value > 0, xp.sqrt(xp.where(value > 0, value, 1.0)), 0.0)


def _check(name: str, value: Any, valid: Callable[[np.ndarray], np.ndarray], rule: str) -> None:
    if isinstance(value, Tracer):
        return
    array = np.asarray(value, np.float64)
    invalid = array[~valid(array)]  # NaN is never valid
    if invalid.size:
        raise UserError(f"{name}: must be {rule}, got {invalid.flat[0]:g}")


def check_positive(name: str, value: Any) -> None:
    """Refuse anything but finite numbers > 0."""
    _check(name, value, lambda v: (v > 0) & (v < np.inf), "finite and > 0")


def check_not_negative(name: str, value: Any, *, infinite: bool = False) -> None:
    """Refuse negative numbers and NaN, and infinity unless `infinite`."""
    if infinite:
        _check(name, value, lambda v: v >= 0, ">= 0")
    else:
        _check(name, value, lambda v: (v >= 0) & (v < np.inf), "finite and >= 0")


def check_unit_interval(name: str, value: Any) -> None:
    """Refuse numbers outside [0, 1]."""
    _check(name, value, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")


def check_integer(name: str, value: Any, least: int) -> None:
    """Refuse anything but whole numbers >= `least`."""
    rule = f"a whole number >= {least}"
    _check(name, value, lambda v: (v >= least) & (v < np.inf) & (v == np.floor(v)), rule)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of `choices`."""
    if value not in choices:
        raise UserError(f"{name}: must be one of {', '.join(choices)}, got {value!r}")


def check_true(name: str, value: bool, reason: str) -> None:
    """Refuse a call in which an assumption of the formula is declared false."""
    if not value:
        raise UserError(f"{name}: the formula does not hold without it: {reason}")
