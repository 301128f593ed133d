"""Losses between language models of different vocabularies, on the answers of a batch.

Logits are [batch, positions, vocabulary]; labels are int [batch, positions], negative where a
position is no part of the answer. An answer has as many positions as labels and begins one position
before the first label. The student's last token, the end of its text, may be left out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from kdjax.errors import UserError
from kdjax.losses._checks import check_labels, check_positive
from kdjax.losses._types import Number
from kdjax.losses._vectors import deviation
from kdjax.losses.sinkhorn import sinkhorn
from kdjax.types import Array

_DEVIATION_EPSILON = 1e-4  # of Multi-Level-OT, as in the reference implementation
_TRANSPORT_SCALE = 1e-3
_WORDS = 50


def universal_logit_distance(
    student_logits: Float[ArrayLike, "batch positions vocabulary"],
    teacher_logits: Float[ArrayLike, "batch positions2 vocabulary2"],
    student_labels: Int[ArrayLike, "batch positions"],
    teacher_labels: Int[ArrayLike, "batch positions2"],
    *,
    skip_student_eos: bool = True,
    temperature: Number = 1.0,
) -> Float[Array, " batch"]:
    """ULD: mean over the tokens of an answer of sum_v |sorted p_s - sorted p_t|_v.

    Both are sorted in descending order; the smaller vocabulary is padded with zeros, and the longer
    answer is cut to the length of the shorter one.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        student_labels: negative outside the answer.
        teacher_labels: of the same answers in the teacher's tokens.
        skip_student_eos: leave out the student's last token.
        temperature: T > 0.

    Returns:
        [batch], between 0 and 2; 0 for an empty answer.

    Raises:
        UserError: shapes that disagree, labels that are not integers.

    Source: Boizard et al. 2024 (arXiv 2402.12030)

    >>> z, answer = jnp.zeros((1, 3, 4)), jnp.array([[-1, 0, 0]])
    >>> print(universal_logit_distance(z, z[..., :2], answer, answer))
    [1.]
    """
    _check(student_logits, teacher_logits, student_labels, teacher_labels)
    s, s_size = _answers(student_logits, student_labels, temperature, drop_last=skip_student_eos)
    t, t_size = _answers(teacher_logits, teacher_labels, temperature)
    s, t = (-jnp.sort(-p, axis=-1) for p in (s, t))
    return _mean_gap(s, t, jnp.minimum(s_size, t_size))


def multi_level_transport(
    student_logits: Float[ArrayLike, "batch positions vocabulary"],
    teacher_logits: Float[ArrayLike, "batch positions2 vocabulary2"],
    student_labels: Int[ArrayLike, "batch positions"],
    teacher_labels: Int[ArrayLike, "batch positions2"],
    *,
    skip_student_eos: bool = True,
    level_weights: Sequence[Number] = (1.0, 0.1, 0.1),
) -> Float[Array, ""]:
    """Multi-Level-OT: weighted sum of three distances between the most frequent words.

    p are the probabilities of z / (deviation + 1e-4) over the vocabulary, 0 after an answer's end.
    Each side keeps the 50 words with the largest sum of p over the batch, in descending order,
    padded with zeros. The distances run over the L places of the longest answer, with
    q = softmax(p) and x = softmax(p / 2):

    - absolute: mean over the batch of the mean over the shorter answer of sum_v |p_s - p_t|;
    - logarithmic: -mean over batch and places of sum_v q_s log q_t;
    - transport: 0.001 times the sum over the batch of the cost of
      `sinkhorn` between an answer's rows of x, teacher to student, epsilon 0.1, 10 iterations.

    Args:
        student_logits: z_s.
        teacher_logits: z_t.
        student_labels: negative outside the answer.
        teacher_labels: of the same answers in the teacher's tokens.
        skip_student_eos: leave out the student's last token.
        level_weights: of the three distances.

    Returns:
        []; couples the batch.

    Raises:
        UserError: shapes that disagree, labels that are not integers.

    Source: Cui et al. 2024 (arXiv 2412.14528); the scales of the published code.

    >>> z, answer = jnp.zeros((1, 3, 4)), jnp.array([[-1, 0, 0]])
    >>> print(multi_level_transport(z, z, answer, answer, level_weights=(1, 0, 0)))
    0.0
    """
    _check(student_logits, teacher_logits, student_labels, teacher_labels)
    student, teacher = (_scaled(z) for z in (student_logits, teacher_logits))
    s, s_size = _answers(student, student_labels, drop_last=skip_student_eos)
    t, t_size = _answers(teacher, teacher_labels)
    s, t = _common_shape(_frequent(s), _frequent(t))
    absolute = jnp.mean(_mean_gap(s, t, jnp.minimum(s_size, t_size)))
    longest = jnp.maximum(jnp.max(s_size), jnp.max(t_size))
    inside = jnp.arange(s.shape[1]) < longest
    log_q_t = jax.nn.log_softmax(t, axis=-1)
    entropies = -jnp.sum(jax.nn.softmax(s, axis=-1) * log_q_t, axis=-1)
    places = jnp.maximum(longest, 1) * len(s)
    logarithmic = jnp.sum(jnp.where(inside, entropies, 0.0)) / places

    def cost(student: Array, teacher: Array) -> Array:
        options = {"temperature": 2.0, "epsilon": 0.1, "num_iters": 10}
        return jnp.sum(sinkhorn(teacher, student, mask=inside, **options).cost)

    transport = _TRANSPORT_SCALE * jnp.sum(jax.vmap(cost)(s, t))
    levels = (absolute, logarithmic, transport)
    return sum((w * x for w, x in zip(level_weights, levels, strict=True)), jnp.float32(0))


def _scaled(logits: ArrayLike) -> Array:
    z = jnp.asarray(logits, jnp.float32)
    return z / (deviation(z)[..., None] + _DEVIATION_EPSILON)


def _answers(
    logits: ArrayLike, labels: ArrayLike, temperature: Number = 1.0, *, drop_last: bool = False
) -> tuple[Array, Array]:
    """Return the probabilities of the answers, moved to place 0, 0 after them, and their sizes."""
    check_positive("temperature", temperature)
    counts = jnp.asarray(labels) >= 0
    size = jnp.maximum(jnp.sum(counts, axis=1) - drop_last, 0)
    # a label is predicted one position before it; labels at position 0 are the tokens after it
    shift = jnp.argmax(counts, axis=1) > 0
    places = jnp.arange(counts.shape[1])
    positions = jnp.argsort(~counts, axis=1, stable=True) - shift[:, None]
    inside = (places < size[:, None])[..., None]
    read = jnp.take_along_axis(jnp.asarray(logits, jnp.float32), positions[..., None], axis=1)
    return jnp.where(inside, jax.nn.softmax(read / temperature, axis=-1), 0.0), size


def _frequent(p: Array) -> Array:
    """Keep the words of the largest sum of probabilities, in descending order."""
    _, order = jax.lax.top_k(jnp.sum(p, axis=(0, 1)), min(_WORDS, p.shape[-1]))
    return p[..., order]


def _common_shape(x: Array, y: Array) -> tuple[Array, Array]:
    """Pad the last two axes with zeros to those of the larger."""
    shape = tuple(map(max, x.shape, y.shape))

    def pad(p: Array) -> Array:
        return jnp.pad(p, [(0, new - old) for new, old in zip(shape, p.shape, strict=True)])

    return pad(x), pad(y)


def _mean_gap(x: Array, y: Array, size: Array) -> Array:
    """Return sum_v |x - y| averaged over the first `size` places, [batch]; 0 if there are none."""
    x, y = _common_shape(x, y)
    gaps = jnp.sum(jnp.abs(x - y), axis=-1)
    inside = jnp.arange(x.shape[1]) < size[:, None]
    return jnp.sum(jnp.where(inside, gaps, 0.0), axis=1) / jnp.maximum(size, 1)


def _check(
    student: ArrayLike, teacher: ArrayLike, student_labels: ArrayLike, teacher_labels: ArrayLike
) -> None:
    shapes = jnp.shape(student), jnp.shape(teacher)
    if {len(shape) for shape in shapes} != {3} or shapes[0][0] != shapes[1][0]:
        raise UserError(
            f"logits: student {shapes[0]} and teacher {shapes[1]} must be [batch, positions, "
            "vocabulary] with equal batch sizes"
        )
    check_labels(student, student_labels, "student's logits")
    check_labels(teacher, teacher_labels, "teacher's logits")
