"""Entropic optimal transport between the examples of a batch: Sinkhorn distillation.

Rows are the student's examples, columns the teacher's; x = softmax(z_s / T), y = softmax(z_t / T),
C_ij = ||x_i - y_j||_1 in [0, 2]. With n real rows and m real columns each row of the plan should
sum to 1 and each column to n / m: the plan is n times the one whose marginals are 1/n and 1/m, so a
cost belongs to one student example for any m. For n = m all marginals are 1.

Epsilon selects one of two forms of the iteration: multiplying by exp(-C / epsilon) is ten times
faster; log space (ott) never underflows. The dtype is float32, or float64 for float64 logits.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Shaped

from kdjax.errors import UserError
from kdjax.losses._checks import check_count, check_mask, check_positive
from kdjax.losses._l1_cost import l1_cost
from kdjax.losses._types import Number, Scalar
from kdjax.types import Array

# The kernel is at least exp(-2 / epsilon), and scalings reach exp(4 / epsilon): exp(80) at this
# epsilon, below float32's limit of exp(88).
_KERNEL_EPSILON = 0.05
_CONVERGED = 1e-2  # row error below which fixed iterations count as converged


class SinkhornOutput(NamedTuple):
    """A plan with its costs and the state of the iterations.

    `row_error` is the largest |sum_j plan_ij - 1| of a real row (column sums are exact);
    `converged`: `row_error` is at most the threshold, or 0.01 with fixed iterations.
    """

    cost: Float[Array, " batch"]
    plan: Float[Array, "batch others"]
    row_error: Scalar
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


class _Solver(NamedTuple):
    epsilon: Number
    num_iters: int
    threshold: Number | None


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

    P is K = exp(-C / epsilon) after dividing `num_iters` times each row, then each column by its
    sum. The published loss is the *sum* of `cost` times a weight. Couples the batch: pass the
    gathered logits of all devices.

    Args:
        student_logits: z_s.
        teacher_logits: z_t; any number of rows.
        temperature: T > 0.
        epsilon: > 0. Below 0.05 the iterations run in log space.
        num_iters: number of iterations; with a threshold, the maximum.
        mask: > 0 for real rows; others cost 0 and are ignored.
        teacher_mask: the same for the teacher; default: `mask` if the numbers of rows are equal.
        threshold: stop when the summed error of the rows is below it; checked every 10
            iterations. The gradient goes through the iterations that ran.

    Returns:
        Costs [batch], between 0 and 2 once the iterations converge, the plan [batch, others], the
        largest row error, the number of iterations that ran and whether they converged. The cost
        includes the bias of epsilon: it is not 0 for equal logits (see `sinkhorn_divergence`).

    Raises:
        UserError: shapes that disagree, temperature, epsilon or threshold <= 0, num_iters < 1.

    Source: Cui et al. 2024 (arXiv 2402.17110).

    >>> far = jnp.array([[500.0, 0.0], [0.0, 500.0]])
    >>> print(sinkhorn(far, far[::-1]).plan.round(4))
    [[0. 1.]
     [1. 0.]]
    """
    solver = _checked_solver(epsilon, num_iters, threshold)
    logits, masks = (student_logits, teacher_logits), (mask, teacher_mask)
    (x, y), (rows, columns) = _checked(*logits, masks, temperature)
    cost = l1_cost(x, y)
    solved = _solve(cost, rows, columns, solver)
    error = jnp.max(jnp.abs(jnp.sum(solved.plan, axis=1) - rows.astype(x.dtype)))
    converged = error <= (_CONVERGED if threshold is None else threshold)
    costs = jnp.sum(solved.plan * cost, axis=1)
    return SinkhornOutput(costs, solved.plan, error, solved.num_iters, converged)


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
) -> Scalar:
    """Debiased transport: n (OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2), 0 for equal batches.

    OT is the dual value of the regularised problem, <P, C> + epsilon KL(P | rows x columns) with
    marginals 1/n and 1/m. The factor n, the number of real student rows, gives it the scale of the
    sum of `sinkhorn`'s costs. Because OT includes the entropy, the divergence is never negative
    once converged. Arguments and errors as in `sinkhorn`.

    Returns:
        []; couples the batch.

    Source: Feydy et al. 2019 (arXiv 1810.08278), equation 3.

    >>> z = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> print(sinkhorn_divergence(z, z))
    0.0
    """
    solver = _checked_solver(epsilon, num_iters, threshold)
    logits, masks = (student_logits, teacher_logits), (mask, teacher_mask)
    (x, y), (rows, columns) = _checked(*logits, masks, temperature)

    def value(a: Array, b: Array, rows: Array, columns: Array) -> Array:
        solved = _solve(l1_cost(a, b), rows, columns, solver)
        n, m = (jnp.maximum(jnp.sum(r), 1).astype(a.dtype) for r in (rows, columns))
        dual = jnp.sum(solved.log_rows) / n + jnp.sum(solved.log_columns) / m + jnp.log(m)
        return epsilon * dual

    any_pair = jnp.any(rows) & jnp.any(columns)
    biased = value(x, y, rows, columns)
    debiased = biased - (value(x, x, rows, rows) + value(y, y, columns, columns)) / 2
    return jnp.where(any_pair, jnp.sum(rows) * debiased, 0.0).astype(x.dtype)


def _solve(cost: Array, rows: Array, columns: Array, solver: _Solver) -> _Solved:
    """Iterate in the form that epsilon allows; with a threshold always in log space (ott)."""
    n, m = jnp.sum(rows), jnp.sum(columns)
    a = jnp.where(m > 0, rows, 0).astype(cost.dtype)
    b = (columns * (n / jnp.maximum(m, 1))).astype(cost.dtype)

    def in_kernel_space(epsilon: Number) -> _Solved:
        return _kernel_space(cost, a, b, epsilon, solver.num_iters)

    def in_log_space(epsilon: Number) -> _Solved:
        return _log_space(cost, a, b, solver._replace(epsilon=epsilon))

    epsilon = solver.epsilon
    if solver.threshold is not None:
        return in_log_space(epsilon)
    if isinstance(epsilon, Tracer):
        large = _is_large(jax.lax.stop_gradient(epsilon))
        return jax.lax.cond(large, in_kernel_space, in_log_space, epsilon)
    return (in_kernel_space if float(epsilon) >= _KERNEL_EPSILON else in_log_space)(epsilon)


@custom_vmap
def _is_large(epsilon: Array) -> Array:
    return jnp.asarray(epsilon) >= _KERNEL_EPSILON


@_is_large.def_vmap
def _(axis_size: int, in_batched: list[bool], epsilon: Array) -> tuple[Array, bool]:
    # All members of a sweep take one branch: a batched predicate would run both for each.
    return _is_large(jnp.min(epsilon, axis=0)), False


def _kernel_space(cost: Array, a: Array, b: Array, epsilon: Number, num_iters: int) -> _Solved:
    """Iterate as published; ott's kernel mode takes 4 to 80 times as long."""
    # It must be finite even where both branches are computed and its result is not used.
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


def _log_space(cost: Array, a: Array, b: Array, solver: _Solver) -> _Solved:
    # Imported here because ott takes seconds to import and most runs do not need it.
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    num_iters, threshold = solver.num_iters, solver.threshold
    inner = num_iters if threshold is None else math.gcd(num_iters, 10)
    epsilon = jnp.asarray(solver.epsilon, cost.dtype)
    iterate = Sinkhorn(
        threshold=-1.0 if threshold is None else threshold,  # pyright: ignore
        min_iterations=num_iters if threshold is None else 0,
        max_iterations=num_iters,
        inner_iterations=inner,
        implicit_diff=None,  # unrolled: its implicit gradient fails for two classes
    )
    # ott's last update is of the first side, the published one of the columns: hence the transpose.
    out = iterate(LinearProblem(Geometry(cost.T, epsilon=epsilon), a=b, b=a))  # pyright: ignore
    columns, rows = (potential / epsilon for potential in out.potentials)
    real = (a > 0)[:, None] & (b > 0)
    exponent = jnp.where(real, rows[:, None] + columns - cost / epsilon, -jnp.inf)
    log_u, log_v = (jnp.where(x > 0, z, 0) for x, z in ((a, rows), (b, columns)))
    done = jnp.sum(jnp.asarray(out.errors) != -1).astype(jnp.int32) * inner
    return _Solved(jnp.exp(exponent), log_u, log_v, done)


def _checked(
    student: ArrayLike, teacher: ArrayLike, masks: tuple[Mask, Mask], temperature: Number
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the probabilities of both sides and their masks as booleans; check the shapes."""
    shapes, (mask, teacher_mask) = (jnp.shape(student), jnp.shape(teacher)), masks
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1]:
        raise UserError(
            f"logits: student {shapes[0]} and teacher {shapes[1]} must be [batch, classes] with "
            "equal numbers of classes"
        )
    check_mask("mask", mask, shapes[0][:1])
    check_mask("teacher_mask", teacher_mask, shapes[1][:1])
    check_positive("temperature", temperature)
    both = mask, mask if teacher_mask is None and shapes[0] == shapes[1] else teacher_mask
    rows, columns = (
        jnp.ones(shape[0], bool) if m is None else jnp.asarray(m) > 0
        for shape, m in zip(shapes, both, strict=True)
    )
    dtype = jnp.promote_types(jnp.result_type(student, teacher), jnp.float32)

    def probabilities(logits: ArrayLike, real: Array) -> Array:
        # A masked row may hold NaN, which would reach every gradient.
        logits = jnp.where(real[:, None], jnp.asarray(logits, dtype), 0)
        return jax.nn.softmax(logits / temperature, axis=-1)

    # The cost has a kink where they are equal, so one rounding error flips its gradient: the
    # barriers keep XLA from fusing both sides with the operations before and after.
    student, teacher = jax.lax.optimization_barrier((student, teacher))
    pair = probabilities(student, rows), probabilities(teacher, columns)
    return jax.lax.optimization_barrier(pair), (rows, columns)


def _checked_solver(epsilon: Number, num_iters: int, threshold: Number | None) -> _Solver:
    check_positive("epsilon", epsilon)
    check_count("num_iters", num_iters)
    if threshold is not None:
        check_positive("threshold", threshold)
    return _Solver(epsilon, num_iters, threshold)
