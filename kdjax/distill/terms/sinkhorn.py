"""Terms of optimal transport between the examples of a batch."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import POSITIVE, LossValue, Scalar, Teachers, TermSpec
from kdjax.distill.terms.tokens import MASK, TOKENS, flat_rows, row_kind, token_features
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Outputs, Scalars

SCALARS = {"temperature": Scalar(2.0, POSITIVE), "epsilon": Scalar(0.1, POSITIVE)}


def sinkhorn(
    num_iters: int = 20,
    tolerance: float = 0.0,
    layer: str = "",
    average: bool = False,
    per_sequence: bool = False,
) -> TermSpec:
    """SinKD: the *sum* over the batch of the cost of transport, no T^2.

    Published weights: 1e-3 (GLUE), 8e-4 (T5, GPT-Neo). The sum grows with the batch size. The term
    also logs `row_error`, `iterations` and `converged`, unless it is `per_sequence`.

    Args:
      num_iters: number of iterations; with a tolerance, the maximum.
      tolerance: stop when the error of the rows is below it; 0 always runs `num_iters`.
      layer: with "token_logits", every real token of all examples is a row.
      average: divide the sum by the number of real rows.
      per_sequence: for a language model: transport between the tokens of one row at a time, and
        the mean over all real tokens; without `layer` and `average`.

    Raises:
      UserError: a number out of range, another layer, or options that exclude each other.
    """
    if per_sequence:
        if layer or average:
            name = "layer" if layer else "average"
            raise UserError(
                f"{name} and per_sequence are set; per_sequence always averages over the tokens of "
                f"token_logits: remove {name}"
            )
        _check(num_iters, tolerance)
        return _by_sequence(num_iters, tolerance)

    def sum_and_convergence(output: losses.SinkhornOutput) -> tuple[Array, dict[str, Array]]:
        return jnp.sum(output.cost), {
            "row_error": output.row_error,
            "iterations": output.num_iters,
            "converged": output.converged,
        }

    settings = _Settings(num_iters, tolerance, layer, average)
    return _transport(losses.sinkhorn, sum_and_convergence, settings)


def sinkhorn_divergence(
    num_iters: int = 20, tolerance: float = 0.0, layer: str = "", average: bool = False
) -> TermSpec:
    """Debiased SinKD, 0 where student and teacher agree; arguments and scale as in `sinkhorn`."""
    settings = _Settings(num_iters, tolerance, layer, average)
    return _transport(losses.sinkhorn_divergence, lambda total: (total, {}), settings)


class _Settings(NamedTuple):
    """The arguments of a term, as in `sinkhorn`."""

    num_iters: int
    tolerance: float
    layer: str
    average: bool


def _check(num_iters: int, tolerance: float) -> None:
    if num_iters < 1:
        raise UserError(f"num_iters is {num_iters}; it must be >= 1")
    if not 0 <= tolerance < math.inf:
        raise UserError(f"tolerance is {tolerance:g}; it must be > 0, or 0 for fixed iterations")


def _transport(
    loss: Callable[..., Any],
    to_sum: Callable[[Any], tuple[Array, dict[str, Array]]],
    settings: _Settings,
) -> TermSpec:
    num_iters, tolerance, layer, average = settings
    _check(num_iters, tolerance)

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> LossValue:
        rows, mask = flat_rows(student, batch, layer)
        teacher_rows, teacher_mask = flat_rows(teachers[0], batch, layer)
        total, logged = to_sum(
            loss(
                rows,
                teacher_rows,
                **scalars,
                num_iters=num_iters,
                mask=mask,
                teacher_mask=teacher_mask,
                threshold=tolerance or None,
            )
        )
        return total / jnp.maximum(jnp.sum(mask > 0), 1) if average else total, logged

    layers, rows = token_features(layer), row_kind(layer)
    return TermSpec(loss_fn, SCALARS, coupled=True, layers=layers, rows=rows)


def _by_sequence(num_iters: int, tolerance: float) -> TermSpec:
    """Return the cost of each token, [rows], of transport between the tokens of a sequence."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        def cost(own: Array, other: Array, mask: Array) -> Array:
            options = {"num_iters": num_iters, "threshold": tolerance or None}
            return losses.sinkhorn(
                own, other, **scalars, **options, mask=mask, teacher_mask=mask
            ).cost

        own, other = (outputs.features[TOKENS] for outputs in (student, teachers[0]))
        return jax.vmap(cost)(own, other, student.features[MASK]).reshape(-1)

    layers = (*token_features(TOKENS), ("row_mask", "row_mask"))
    return TermSpec(loss_fn, SCALARS, layers=layers)
