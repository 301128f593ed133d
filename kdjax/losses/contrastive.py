"""CRD: contrastive distillation against a memory of embeddings, as two pure functions.

`contrast_init` makes the memory; `contrast_loss` returns the loss and the next memory. The memory
is training state: save it in checkpoints. The embeddings come from projectors that are part of the
networks (published: one linear layer to 128 numbers on either side).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from kdjax.errors import UserError
from kdjax.losses._checks import check_count, check_fraction, check_positive
from kdjax.losses._types import Number
from kdjax.losses._vectors import products, unit
from kdjax.types import Array


class ContrastMemory(NamedTuple):
    """Embeddings of the training set that CRD compares with; row i belongs to the image with id i.

    `order` lists all rows, sorted by class; the rows of image i's class are the `class_size[i]`
    entries from `class_start[i]` on. `log_normalizers` are log(Z / rows) of student and teacher;
    the first batch sets them (`started`).
    """

    student: Float[Array, "rows width"]
    teacher: Float[Array, "rows width"]
    order: Int[Array, " rows"]
    class_start: Int[Array, " rows"]
    class_size: Int[Array, " rows"]
    log_normalizers: Float[Array, "2"]
    started: Bool[Array, ""]


def contrast_init(key: Array, labels: Int[ArrayLike, " rows"], *, width: int) -> ContrastMemory:
    """Return a memory of random directions for a training set with these labels.

    Returns:
        ContrastMemory of [rows, width] embeddings of length 1.

    Raises:
        UserError: labels that are not [rows] integers of at least two classes, width < 1.

    Source: Tian et al. 2020 (arXiv 1910.10699); entries uniform in +-sqrt(3 / width), as in the
    published code, then normalized.

    >>> memory = contrast_init(jax.random.key(0), jnp.array([1, 0, 1]), width=4)
    >>> print(memory.student.shape, memory.order, memory.class_start, memory.class_size)
    (3, 4) [1 0 2] [1 0 1] [2 1 2]
    """
    labels = jnp.asarray(labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"labels: {labels.dtype} {labels.shape} must be [rows] class indices")
    check_count("width", width)
    if not isinstance(labels, Tracer) and bool(jnp.all(labels == labels[:1])):
        raise UserError("labels: all images have the same class, so there are no negatives")
    order = jnp.argsort(labels, stable=True).astype(jnp.int32)
    start, end = (
        jnp.searchsorted(labels[order], labels, side=side).astype(jnp.int32)
        for side in ("left", "right")
    )
    student, teacher = (
        unit(jax.random.uniform(k, (labels.shape[0], width), minval=-1.0, maxval=1.0))
        for k in jax.random.split(key)
    )
    return ContrastMemory(
        student, teacher, order, start, end - start, jnp.zeros(2), jnp.array(False)
    )


def contrast_loss(
    student_embedding: Float[ArrayLike, "batch width"],
    teacher_embedding: Float[ArrayLike, "batch width"],
    ids: Int[ArrayLike, " batch"],
    memory: ContrastMemory,
    key: Array,
    *,
    num_negatives: int = 16384,
    temperature: Number = 0.07,
    momentum: Number = 0.5,
    mask: Float[ArrayLike, " batch"] | None = None,
) -> tuple[Float[Array, " batch"], ContrastMemory]:
    """CRD: distinguish an image's stored embedding from those of other classes, on both sides.

    With v = f / ||f||, the student's logit for row j is u_j = <v_s, teacher_j> / T - log Z' -
    log(num_negatives), and its loss -log sigmoid(u_own) - sum_negatives log sigmoid(-u_j); the
    teacher's is the same with the sides swapped. log Z' is the log mean of exp(<.,.> / T) over the
    first batch. The memory is detached and updated afterwards: row <- unit(momentum row +
    (1 - momentum) v). On several devices, pass the gathered batch.

    Args:
        student_embedding: f_s; its Euclidean length must not be 0.
        teacher_embedding: f_t.
        ids: row of each image in the memory, without repeats.
        memory: from `contrast_init` or the previous call.
        key: consumed; draws the negatives (uniform over other classes, with replacement).
        num_negatives: N > 0.
        temperature: T > 0.
        momentum: in [0, 1).
        mask: 0 excludes an example from Z and from the memory; its loss is finite and must be
            ignored.

    Returns:
        ([batch] nats, the memory after this batch).

    Raises:
        UserError: shapes that disagree, num_negatives < 1, temperature <= 0, momentum outside
            [0, 1).

    Source: Tian et al. 2020 (arXiv 1910.10699), equations 17 to 19; in log space, without the
    1e-7 of the published code, and with negatives drawn with replacement.

    >>> keys, f = jax.random.split(jax.random.key(0)), jnp.eye(3)
    >>> memory = contrast_init(keys[0], jnp.array([0, 1, 2]), width=3)
    >>> loss, memory = contrast_loss(f, f, jnp.arange(3), memory, keys[1], num_negatives=8)
    >>> print(loss.shape, memory.started)
    (3,) True
    """
    _check(student_embedding, teacher_embedding, ids, memory, num_negatives)
    check_positive("temperature", temperature)
    check_fraction("momentum", momentum)
    student, teacher = (
        unit(jnp.asarray(f, jnp.float32)) for f in (student_embedding, teacher_embedding)
    )
    ids = jnp.asarray(ids)
    rows = jnp.concatenate([ids[:, None], _negatives(key, ids, memory, num_negatives)], axis=1)
    scores = jnp.stack(
        [_scores(student, memory.teacher, rows), _scores(teacher, memory.student, rows)]
    )
    scores = scores / temperature
    real = jnp.ones(ids.shape, bool) if mask is None else jnp.asarray(mask) > 0
    first = _first_normalizers(scores, real)
    normalizers = jax.lax.stop_gradient(jnp.where(memory.started, memory.log_normalizers, first))
    updated = jnp.where(real, ids, memory.order.shape[0])  # out of range: not written
    logits = scores - normalizers[:, None, None] - jnp.log(float(num_negatives))
    positive_loss = -jax.nn.log_sigmoid(logits[..., 0])
    negative_loss = -jnp.sum(jax.nn.log_sigmoid(-logits[..., 1:]), axis=-1)
    next_memory = memory._replace(
        student=_update(memory.student, updated, student, momentum),
        teacher=_update(memory.teacher, updated, teacher, momentum),
        log_normalizers=normalizers,
        started=memory.started | jnp.any(real),
    )
    return jnp.sum(positive_loss + negative_loss, axis=0), next_memory


def _check(
    student: ArrayLike, teacher: ArrayLike, ids: ArrayLike, memory: ContrastMemory, negatives: int
) -> None:
    shape = (*jnp.shape(ids), memory.student.shape[-1])
    if jnp.ndim(ids) != 1 or jnp.shape(student) != shape or jnp.shape(teacher) != shape:
        raise UserError(
            f"embeddings: student {jnp.shape(student)} and teacher {jnp.shape(teacher)} must be "
            f"[batch, {shape[-1]}] (the memory's width) with ids [batch], got {jnp.shape(ids)}"
        )
    if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        raise UserError(f"ids: dtype {jnp.result_type(ids)} must be an integer")
    check_count("num_negatives", negatives)


def _negatives(key: Array, ids: Array, memory: ContrastMemory, number: int) -> Array:
    """Draw rows of other classes [batch, number]: entries of `order` outside the image's class."""
    start, count = memory.class_start[ids][:, None], memory.class_size[ids][:, None]
    entry = jax.random.randint(key, (*ids.shape, number), 0, memory.order.shape[0] - count)
    return memory.order[jnp.where(entry < start, entry, entry + count)]


def _scores(embedding: Array, remembered: Array, rows: Array) -> Array:
    # Multiply with all rows, then select: gathering [batch, negatives, width] embeddings would move
    # `width` times as many numbers.
    all_scores = products(embedding, jax.lax.stop_gradient(remembered))
    return jnp.take_along_axis(all_scores, rows, axis=1)


def _first_normalizers(scores: Array, real: Array) -> Array:
    """Log mean of exp over the real examples of a batch, [2]; 0 if there are none."""
    counted = jnp.where(real[:, None], scores, -jnp.inf)
    total = jax.nn.logsumexp(jax.lax.stop_gradient(counted), axis=(1, 2))
    mean = total - jnp.log(jnp.maximum(jnp.sum(real), 1) * scores.shape[2])
    return jnp.where(jnp.any(real), mean, 0.0)


def _update(remembered: Array, ids: Array, embedding: Array, momentum: Number) -> Array:
    rows = unit(momentum * remembered[ids] + (1 - momentum) * embedding)
    return jax.lax.stop_gradient(remembered.at[ids].set(rows, mode="drop"))
