"""Terms from a user's functions: a loss on logits, or a function that returns a `TermSpec`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from kdjax.distill.terms.spec import POSITIVE, Scalar, Teachers, TermSpec
from kdjax.errors import UserError, is_number
from kdjax.types import Array, Batch, Outputs, Scalars

_LABELS = ("label", "labels")


def term_factory(function: Any, name: str) -> Callable[..., TermSpec]:
    """Return a function like those of `TERM_SPECS` for a user's function.

    A function without required arguments returns a `TermSpec`, and its arguments are layers. Any
    other function is a loss: `loss(student_logits, teacher_logits, *, scalars)` or `loss(logits,
    labels, *, scalars)`, which returns one number per example. Its keyword arguments, with numbers
    as defaults, are the scalars of the term. The term does not multiply by T^2.

    Raises:
      UserError: it is neither, the default of a scalar is not a number, or a scalar is named
        weight.

    >>> def squared(student, teacher, *, temperature=2.0):
    ...     return ((student - teacher) ** 2).mean(-1) / temperature
    >>> term_factory(squared, "squared")().scalars
    {'temperature': Scalar(default=2.0, domain=(0.0, inf))}
    """
    if not callable(function):
        raise UserError(f"{name} is a {type(function).__name__}; name a function")
    parameters = inspect.signature(function).parameters.values()
    arrays = [p.name for p in parameters if p.default is p.empty]
    if not arrays:
        return _check(function, name)
    if len(arrays) != 2 or any(p.kind is p.KEYWORD_ONLY for p in parameters if p.name in arrays):
        raise UserError(
            f"{name} takes {', '.join(arrays)}; a loss takes (student_logits, teacher_logits) or "
            "(logits, labels), then scalars with defaults"
        )
    scalars = {p.name: p.default for p in parameters if p.name not in arrays}
    for key, value in scalars.items():
        if not is_number(value):
            raise UserError(f"{name}: the default of {key} is {value!r}; a scalar is a number")
    if "weight" in scalars:
        raise UserError(f"{name}: every term has a weight, which multiplies it; rename the scalar")
    reads_labels = arrays[1] in _LABELS

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        other = batch["label"] if reads_labels else teachers[0].logits
        values = jnp.asarray(function(student.logits, other, **scalars), jnp.float32)
        if values.shape != student.logits.shape[:1]:
            raise UserError(
                f"{name} returns {values.shape}; return one number per example, [batch]"
            )
        return values

    def term() -> TermSpec:
        domains = {"temperature": POSITIVE}
        table = {key: Scalar(float(value), domains.get(key)) for key, value in scalars.items()}
        return TermSpec(loss_fn, table, teachers="none" if reads_labels else "each")

    return term


def _check(function: Callable[..., Any], name: str) -> Callable[..., TermSpec]:
    returned = function()
    if not isinstance(returned, TermSpec):
        raise UserError(
            f"{name} returns a {type(returned).__name__}; a function without arrays returns a "
            "kdjax.distill.terms.TermSpec"
        )
    return function
