"""Terms of optimal transport between the examples of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import POSITIVE, Definition, Found, Scalar
from kdjax.distill.terms.tokens import flat_rows, looked_at
from kdjax.types import Batch, Outputs, Scalars, UserError

SCALARS = {"temperature": Scalar(2.0, POSITIVE), "epsilon": Scalar(0.1, POSITIVE)}


def sinkhorn(num_iters: int = 20, tolerance: float = 0.0, layer: str = "") -> Definition:
    """SinKD: the *sum* over the batch of the cost of transport, no T^2.

    A weight of 1e-3 (GLUE) or 8e-4 (T5, GPT-Neo) is that of the publication; as a sum it grows
    with the batch. Logged beside it: `row_error`, `iterations` and `converged`.

    Args:
      num_iters: the iterations; with a tolerance, the most there may be.
      tolerance: stop when the rows are off by less; 0 always makes `num_iters`.
      layer: "token_logits" takes every real token of all examples as a row.

    Raises:
      UserError: a number out of range, or another layer.
    """

    def read(out: losses.SinkhornOutput) -> Found:
        steps = {"iterations": out.num_iters, "converged": out.converged}
        return jnp.sum(out.cost), {"row_error": out.row_error, **steps}

    return _transport(losses.sinkhorn, read, num_iters, tolerance, layer)


def sinkhorn_divergence(num_iters: int = 20, tolerance: float = 0.0, layer: str = "") -> Definition:
    """Debiased SinKD, 0 where student and teacher agree; arguments and scale as in `sinkhorn`."""
    return _transport(losses.sinkhorn_divergence, lambda out: out, num_iters, tolerance, layer)


def _transport(
    loss: Callable[..., Any],
    read: Callable[[Any], Found],
    num_iters: int,
    tolerance: float,
    layer: str,
) -> Definition:
    if num_iters < 1:
        raise UserError(f"num_iters is {num_iters}; it must be >= 1")
    if tolerance < 0:
        raise UserError(f"tolerance is {tolerance:g}; it must be > 0, or 0 for fixed iterations")

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Found:
        student, rows = flat_rows(own, batch, layer)
        teacher, columns = flat_rows(peers[0], batch, layer)
        return read(
            loss(
                student,
                teacher,
                **scalars,
                num_iters=num_iters,
                mask=rows,
                teacher_mask=columns,
                threshold=tolerance or None,
            )
        )

    return Definition(value, SCALARS, coupled=True, layers=looked_at(layer))
