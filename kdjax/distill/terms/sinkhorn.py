"""Terms of optimal transport between the examples of a batch."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import POSITIVE, LossValue, Scalar, Teachers, TermSpec
from kdjax.distill.terms.tokens import flat_rows, token_features
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Outputs, Scalars

SCALARS = {"temperature": Scalar(2.0, POSITIVE), "epsilon": Scalar(0.1, POSITIVE)}


def sinkhorn(num_iters: int = 20, tolerance: float = 0.0, layer: str = "") -> TermSpec:
    """SinKD: the *sum* over the batch of the cost of transport, no T^2.

    Published weights: 1e-3 (GLUE), 8e-4 (T5, GPT-Neo). The sum grows with the batch size. The term
    also logs `row_error`, `iterations` and `converged`.

    Args:
      num_iters: number of iterations; with a tolerance, the maximum.
      tolerance: stop when the error of the rows is below it; 0 always runs `num_iters`.
      layer: with "token_logits", every real token of all examples is a row.

    Raises:
      UserError: a number out of range, or another layer.
    """

    def sum_and_convergence(output: losses.SinkhornOutput) -> tuple[Array, dict[str, Array]]:
        return jnp.sum(output.cost), {
            "row_error": output.row_error,
            "iterations": output.num_iters,
            "converged": output.converged,
        }

    return _transport(losses.sinkhorn, sum_and_convergence, num_iters, tolerance, layer)


def sinkhorn_divergence(num_iters: int = 20, tolerance: float = 0.0, layer: str = "") -> TermSpec:
    """Debiased SinKD, 0 where student and teacher agree; arguments and scale as in `sinkhorn`."""
    return _transport(losses.sinkhorn_divergence, lambda total: total, num_iters, tolerance, layer)


def _transport(
    loss: Callable[..., Any],
    to_loss_value: Callable[[Any], LossValue],
    num_iters: int,
    tolerance: float,
    layer: str,
) -> TermSpec:
    if num_iters < 1:
        raise UserError(f"num_iters is {num_iters}; it must be >= 1")
    if tolerance < 0:
        raise UserError(f"tolerance is {tolerance:g}; it must be > 0, or 0 for fixed iterations")

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> LossValue:
        rows, mask = flat_rows(student, batch, layer)
        teacher_rows, teacher_mask = flat_rows(teachers[0], batch, layer)
        return to_loss_value(
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

    return TermSpec(loss_fn, SCALARS, coupled=True, layers=token_features(layer))
