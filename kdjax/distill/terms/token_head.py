"""Losses of tokens from hidden states, with the logits of one chunk of tokens at a time.

    sum_i w_i loss(states_i table^T, teacher_states_i teacher_table^T)

The forward pass also computes the gradient, chunk by chunk, because the backward pass of a sum only
scales it. There are as many products as without chunks, but only the logits of one chunk are in
memory. Each term computes the student's logits again.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.distill.terms.spec import Teachers, TermSpec
from kdjax.distill.terms.tokens import MASK, TARGETS
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Outputs, Scalars

STATES, TABLE = "token_states", "token_table"  # features: hidden states, output matrix

# loss(logits [tokens, vocabulary], other [tokens, ...], **scalars) -> [tokens]
TokenLoss = Callable[..., Array]


class Head(NamedTuple):
    """The hidden states of tokens, [tokens, width], and the output matrix, [vocabulary, width]."""

    states: Array
    table: Array

    def logits(self) -> Array:
        """Return states table^T, [tokens, vocabulary] float32, computed in the states' dtype."""
        return jnp.einsum(
            "tw,vw->tv",
            self.states,
            self.table.astype(self.states.dtype),
            preferred_element_type=jnp.float32,
        )


class _Part(NamedTuple):
    """The arrays of tokens; `other` has the teacher's states, or targets."""

    states: Array
    other: Array
    weights: Array


class _Operands(NamedTuple):
    """The arguments of a sum that get no gradient."""

    teacher: Head | Array
    weights: Array
    scalars: Mapping[str, Any]


def in_chunks(spec: TermSpec, loss: TokenLoss, layer: str, chunk: int) -> TermSpec:
    """Return a term on the tokens of a language model that computes logits in chunks.

    It reads "token_states" [batch, (...,) width] and "token_table" [vocabulary, width] in place of
    logits. Values and gradients stay the same.

    Args:
      spec: the term on logits.
      loss: of one token.
      layer: of the term, "" (rows are tokens) or "token_logits".
      chunk: tokens whose logits are in memory at a time; 0 returns `spec`.

    Raises:
      UserError: a negative chunk, or a chunk of a term whose logits are not of tokens.
    """
    if chunk == 0:
        return spec
    if chunk < 0:
        raise UserError(f"chunk is {chunk}; it must be >= 1, or 0 for all tokens at once")
    if spec.own_logits:
        raise UserError(f"chunk is set, but {spec.own_logits} are not logits of tokens; remove it")

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        if spec.teachers == "none":
            targets = student.features[TARGETS] if layer else batch["label"]
            other = targets.reshape(-1)
        else:
            other = _head(teachers[0])
        weights = _weights(student, batch) if layer else batch["mask"]
        return weighted_sum(loss, _head(student), other, weights, scalars, chunk)

    pairs = tuple((name, name) for name in (STATES, TABLE))
    return spec._replace(
        loss_fn=loss_fn,
        sums=True,
        match="free",
        layers=(*pairs, *(pair for pair in spec.layers if pair[0] in (MASK, TARGETS))),
    )


def _head(outputs: Outputs) -> Head:
    states = outputs.features[STATES]
    return Head(states.reshape(-1, states.shape[-1]), outputs.features[TABLE])


def _weights(outputs: Outputs, batch: Batch) -> Array:
    """Return the weight of each token in the sum over examples of means over real tokens."""
    real = (outputs.features[MASK] > 0).astype(jnp.float32)
    weights = batch["mask"] / jnp.maximum(jnp.sum(real, axis=-1), 1)
    return (real * weights[:, None]).reshape(-1)


def weighted_sum(
    loss: TokenLoss,
    student: Head,
    teacher: Head | Array,
    weights: Array,
    scalars: Mapping[str, Any],
    chunk: int,
) -> Array:
    """Return sum_i w_i loss(z_i, y_i), z the student's logits, y the teacher's, or targets.

    The student's states and matrix get gradients; the teacher is detached.

    Args:
      loss: of the logits of tokens, one number per token; called with `scalars` by keyword.
      student: of all tokens.
      teacher: of all tokens, or int32 [tokens], the targets.
      weights: [tokens]; a token of weight 0 has no effect.
      scalars: of the loss.
      chunk: tokens whose logits are in memory at a time.

    Returns:
      [], float32.

    >>> loss = lambda z, y: jnp.sum((z - y) ** 2, axis=-1)
    >>> student, teacher = (Head(jnp.ones((5, w)), jnp.ones((3, w))) for w in (2, 1))
    >>> print(weighted_sum(loss, student, teacher, jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]), {}, 2))
    9.0
    """
    return _sum(loss, chunk, student, jax.lax.stop_gradient(_Operands(teacher, weights, scalars)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(loss: TokenLoss, chunk: int, student: Head, operands: _Operands) -> Array:
    def add(total: Array, part: _Part) -> tuple[Array, None]:
        return total + _chunk_sum(loss, student.table, part, operands), None

    return jax.lax.scan(add, jnp.float32(0), _chunks(student, operands, chunk))[0]


def _sum_and_gradient(
    loss: TokenLoss, chunk: int, student: Head, operands: _Operands
) -> tuple[Array, Head]:
    def add(sums: tuple[Array, Array], part: _Part) -> tuple[tuple[Array, Array], Array]:
        def value(table: Array, states: Array) -> Array:
            return _chunk_sum(loss, table, part._replace(states=states), operands)

        gradient = jax.value_and_grad(value, argnums=(0, 1))
        chunk_total, (table, states) = gradient(student.table, part.states)
        return (sums[0] + chunk_total, sums[1] + table), states

    start = jnp.float32(0), jnp.zeros_like(student.table)
    (total, table), states = jax.lax.scan(add, start, _chunks(student, operands, chunk))
    states = states.reshape(-1, states.shape[-1])[: len(student.states)]
    return total, Head(states, table)


def _scale(loss: TokenLoss, chunk: int, gradient: Head, cotangent: Array) -> tuple[Head, None]:
    return jax.tree.map(lambda x: (cotangent * x).astype(x.dtype), gradient), None


_sum.defvjp(_sum_and_gradient, _scale)


def _chunk_sum(loss: TokenLoss, table: Array, part: _Part, operands: _Operands) -> Array:
    """Return the sum over the tokens of one chunk."""
    other = part.other
    if isinstance(operands.teacher, Head):
        other = Head(other, operands.teacher.table).logits()
    values = loss(Head(part.states, table).logits(), other, **operands.scalars)
    return jnp.sum(jnp.where(part.weights != 0, part.weights * values, 0.0))


def _chunks(student: Head, operands: _Operands, chunk: int) -> _Part:
    """Return the arrays of all chunks, [chunks, chunk, ...].

    Padding, and states of tokens without weight, are 0, so that their logits are finite.
    """
    teacher, weights = operands.teacher, operands.weights.astype(jnp.float32)
    other = teacher.states if isinstance(teacher, Head) else teacher
    size = min(chunk, len(weights))

    def divide(x: Array) -> Array:
        real = (weights != 0).reshape(-1, *(1,) * (x.ndim - 1))
        x = jnp.where(real, x, 0)
        padded = jnp.pad(x, ((0, -len(x) % size), *((0, 0),) * (x.ndim - 1)))
        return padded.reshape(-1, size, *x.shape[1:])

    return _Part(divide(student.states), divide(other), divide(weights))
