"""Entropic optimal transport between the examples of a batch: Sinkhorn distillation.

Rows are the student's examples, columns the teacher's; x = softmax(z_s / T), y = softmax(z_t / T),
C_ij = ||x_i - y_j||_1 in [0, 2]. With n real rows and m real columns each row of the plan should
sum to 1 and each column to n / m: n times the plan whose marginals are 1/n and 1/m, so that costs
are those of one student example whatever m is. For n = m all marginals are 1.

Two spaces, one iteration: multiplying by exp(-C / epsilon) is ten times faster, log space (ott)
never underflows; epsilon decides. float32, or float64 where the logits are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Shaped

from kdjax.losses._checks import Number, check_positive
from kdjax.losses._l1_cost import l1_cost
from kdjax.types import Array, UserError

__all__ = ["SinkhornOutput", "sinkhorn", "sinkhorn_divergence"]

# The kernel is at least exp(-2 / epsilon), and scalings reach that size to the power of -2:
# exp(80) from here on, below float32's exp(88).
_KERNEL_EPSILON = 0.05
_CONVERGED = 1e-2  # what fixed iterations must reach to count as converged


class SinkhornOutput(NamedTuple):
    """A plan, and how far the iterations got.

    `row_error` is the largest |sum_j plan_ij - 1| of a real row (columns are met exactly);
    `converged`: it is at most the threshold, or 0.01 with fixed iterations.
    """

    cost: Float[Array, " batch"]
    plan: Float[Array, "batch others"]
    row_error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


class _Solved(NamedTuple):
    plan: Array
    log_rows: Array  # plan = exp(log_rows_i + log_columns_j - C_ij / epsilon); 0 where masked
    log_columns: Array
    num_iters: Array


Mask = Shaped[ArrayLike, " batch"] | None


def sinkhorn(
    student_logits: Float[ArrayLike, "batch classes"],
    teacher_logits: Float[ArrayLike, "others classes"],
    *,
    temperature: Number = 2.0,
    epsilon: Number = 0.1,
    num_iters: int = 20,
    mask: Mask = None,
    teacher_mask: Shaped[ArrayLike, " others"] | None = None,
    threshold: Number | None = None,
) -> SinkhornOutput:
    """SinKD's cost of each student example: cost_i = sum_j P_ij C_ij.

    P is K = exp(-C / epsilon) after `num_iters` times dividing each row, then each column by its
    sum. The published loss is the *sum* of `cost` times a weight. Examples are coupled: over
    devices, gather them first.

    Args:
        student_logits: z_s.
        teacher_logits: z_t, of one example a row; as many rows as it likes.
        temperature: T > 0.
        epsilon: > 0. Below 0.05 the iterations run in log space.
        num_iters: the iterations; with a threshold, the most there may be.
        mask: rows that are real (> 0); others cost 0 and are seen by none.
        teacher_mask: the teacher's; `mask` by default where both have as many rows.
        threshold: stop when the rows are off by less than this in total; looked at every 10
            iterations. The gradient is that of the iterations made.

    Returns:
        Costs [batch] between 0 and 2, the plan [batch, others], the largest row error, the
        iterations made and whether they sufficed. The bias of epsilon stays in the cost:
        it is not 0 for equal logits (see `sinkhorn_divergence`).

    Raises:
        UserError: shapes that disagree, temperature, epsilon or threshold <= 0, num_iters < 1.

    Source: Cui et al. 2024 (arXiv 2402.17110).

    >>> far = jnp.array([[500.0, 0.0], [0.0, 500.0]])
    >>> print(sinkhorn(far, far[::-1]).plan.round(4))
    [[0. 1.]
     [1. 0.]]
    """
    _check(student_logits, teacher_logits, mask, teacher_mask)
    _check_numbers(temperature, epsilon, num_iters, threshold)
    rows, columns = _masks(student_logits, teacher_logits, mask, teacher_mask)
    x, y = _probabilities(student_logits, teacher_logits, (rows, columns), temperature)
    cost = l1_cost(x, y)
    solved = _solve(cost, rows, columns, epsilon, num_iters, threshold)
    error = jnp.max(jnp.abs(jnp.sum(solved.plan, axis=1) - rows.astype(x.dtype)))
    enough = error <= (_CONVERGED if threshold is None else threshold)
    found = jnp.sum(solved.plan * cost, axis=1)
    return SinkhornOutput(found, solved.plan, error, solved.num_iters, enough)


def sinkhorn_divergence(
    student_logits: Float[ArrayLike, "batch classes"],
    teacher_logits: Float[ArrayLike, "others classes"],
    *,
    temperature: Number = 2.0,
    epsilon: Number = 0.1,
    num_iters: int = 20,
    mask: Mask = None,
    teacher_mask: Shaped[ArrayLike, " others"] | None = None,
    threshold: Number | None = None,
) -> Float[Array, ""]:
    """Debiased transport: n (OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2), 0 for equal batches.

    OT is regularised, <P, C> + epsilon KL(P | rows x columns) with marginals 1/n and 1/m, by its
    dual value, and n the number of real student rows: on the scale of the sum of `sinkhorn`'s
    costs. Only so (with the entropy) is it never negative, once converged. Arguments and errors
    as in `sinkhorn`.

    Returns:
        []; couples the batch.

    Source: Feydy et al. 2019 (arXiv 1810.08278), equation 3.

    >>> z = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> print(sinkhorn_divergence(z, z))
    0.0
    """
    _check(student_logits, teacher_logits, mask, teacher_mask)
    _check_numbers(temperature, epsilon, num_iters, threshold)
    rows, columns = _masks(student_logits, teacher_logits, mask, teacher_mask)
    x, y = _probabilities(student_logits, teacher_logits, (rows, columns), temperature)

    def value(a: Array, b: Array, rows: Array, columns: Array) -> Array:
        solved = _solve(l1_cost(a, b), rows, columns, epsilon, num_iters, threshold)
        n, m = (jnp.maximum(jnp.sum(r), 1).astype(a.dtype) for r in (rows, columns))
        dual = jnp.sum(solved.log_rows) / n + jnp.sum(solved.log_columns) / m + jnp.log(m)
        return epsilon * dual

    both = jnp.any(rows) & jnp.any(columns)
    apart = value(x, y, rows, columns)
    debiased = apart - (value(x, x, rows, rows) + value(y, y, columns, columns)) / 2
    return jnp.where(both, jnp.sum(rows) * debiased, 0.0).astype(x.dtype)


def _solve(
    cost: Array,
    rows: Array,
    columns: Array,
    epsilon: Number,
    num_iters: int,
    threshold: Number | None,
) -> _Solved:
    """Iterate in the space that epsilon allows; a tolerance is ott's business, in log space."""
    n, m = jnp.sum(rows), jnp.sum(columns)
    a = jnp.where(m > 0, rows, 0).astype(cost.dtype)
    b = (columns * (n / jnp.maximum(m, 1))).astype(cost.dtype)

    def kernel(epsilon: Number) -> _Solved:
        return _kernel_space(cost, a, b, epsilon, num_iters)

    def logs(epsilon: Number) -> _Solved:
        return _log_space(cost, a, b, epsilon, num_iters, threshold)

    if threshold is not None:
        return logs(epsilon)
    if isinstance(epsilon, Tracer):
        enough = _at_least(jax.lax.stop_gradient(epsilon))
        return jax.lax.cond(enough, kernel, logs, epsilon)
    return (kernel if float(epsilon) >= _KERNEL_EPSILON else logs)(epsilon)


@custom_vmap
def _at_least(epsilon: Array) -> Array:
    return jnp.asarray(epsilon) >= _KERNEL_EPSILON


@_at_least.def_vmap
def _(axis_size: int, in_batched: list[bool], epsilon: Array) -> tuple[Array, bool]:
    # One branch for all members of a sweep: a batched predicate would run both for each.
    return _at_least(jnp.min(epsilon, axis=0)), False


def _kernel_space(cost: Array, a: Array, b: Array, epsilon: Number, num_iters: int) -> _Solved:
    """The published form. Written out because ott's kernel mode takes 4 to 80 times as long."""
    # Where both branches are computed and this one dropped, it must still be finite.
    kernel = jnp.exp(-cost / jnp.maximum(epsilon, _KERNEL_EPSILON).astype(cost.dtype))

    def scale(marginal: Array, sums: Array) -> Array:
        return marginal / jnp.where(sums > 0, sums, 1)

    def iterate(scalings: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        u = scale(a, kernel @ scalings[1])
        return (u, scale(b, u @ kernel)), None

    start = a, (b > 0).astype(cost.dtype)
    (u, v), _ = jax.lax.scan(iterate, start, None, length=num_iters)
    log_u, log_v = (jnp.log(jnp.where(x > 0, x, 1)) for x in (u, v))
    return _Solved(u[:, None] * kernel * v, log_u, log_v, jnp.int32(num_iters))


def _log_space(
    cost: Array,
    a: Array,
    b: Array,
    epsilon: Number,
    num_iters: int,
    threshold: Number | None,
) -> _Solved:
    # Here, because ott takes seconds to import and most runs do without.
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    inner = num_iters if threshold is None else math.gcd(num_iters, 10)
    epsilon = jnp.asarray(epsilon, cost.dtype)
    solver = Sinkhorn(
        threshold=-1.0 if threshold is None else threshold,  # pyright: ignore
        min_iterations=num_iters if threshold is None else 0,
        max_iterations=num_iters,
        inner_iterations=inner,
        implicit_diff=None,  # unrolled: its implicit gradient fails for two classes
    )
    # ott ends on its first side, the published iteration on columns: hence the transpose.
    out = solver(LinearProblem(Geometry(cost.T, epsilon=epsilon), a=b, b=a))  # pyright: ignore
    columns, rows = (potential / epsilon for potential in out.potentials)
    real = (a > 0)[:, None] & (b > 0)
    exponent = jnp.where(real, rows[:, None] + columns - cost / epsilon, -jnp.inf)
    log_u, log_v = (jnp.where(x > 0, z, 0) for x, z in ((a, rows), (b, columns)))
    done = jnp.sum(jnp.asarray(out.errors) != -1).astype(jnp.int32) * inner
    return _Solved(jnp.exp(exponent), log_u, log_v, done)


def _probabilities(
    student: ArrayLike, teacher: ArrayLike, real: tuple[Array, Array], temperature: Number
) -> tuple[Array, Array]:
    """Probabilities of both; a masked row may hold NaN, which 0 times a gradient would spread."""
    dtype = jnp.promote_types(jnp.result_type(student, teacher), jnp.float32)

    def one(logits: ArrayLike, rows: Array) -> Array:
        logits = jnp.where(rows[:, None], jnp.asarray(logits, dtype), 0)
        return jax.nn.softmax(logits / temperature, axis=-1)

    # The cost has a kink where they are equal, so one rounding turns its gradient around: both are
    # computed alike, apart from what makes the logits and from what uses them.
    both = jax.lax.optimization_barrier((student, teacher))
    return jax.lax.optimization_barrier(tuple(map(one, both, real)))


def _masks(
    student: ArrayLike, teacher: ArrayLike, mask: ArrayLike | None, other: ArrayLike | None
) -> tuple[Array, Array]:
    if other is None and jnp.shape(student) == jnp.shape(teacher):
        other = mask
    given = ((student, mask), (teacher, other))
    rows, columns = (
        jnp.ones(jnp.shape(z)[0], bool) if m is None else jnp.asarray(m) > 0 for z, m in given
    )
    return rows, columns


def _check(
    student: ArrayLike, teacher: ArrayLike, mask: ArrayLike | None, other: ArrayLike | None
) -> None:
    s, t = jnp.shape(student), jnp.shape(teacher)
    if len(s) != 2 or len(t) != 2 or s[1] != t[1]:
        raise UserError(
            f"logits: student {s} and teacher {t} must be [batch, classes], of as many classes"
        )
    for name, given, size in (("mask", mask, s[0]), ("teacher_mask", other, t[0])):
        if given is not None and jnp.shape(given) != (size,):
            raise UserError(f"{name}: shape {jnp.shape(given)} must be ({size},), one a row")


def _check_numbers(
    temperature: Number, epsilon: Number, num_iters: int, threshold: Number | None
) -> None:
    check_positive("temperature", temperature)
    check_positive("epsilon", epsilon)
    if num_iters < 1:
        raise UserError(f"num_iters: must be >= 1, got {num_iters}")
    if threshold is not None:
        check_positive("threshold", threshold)
