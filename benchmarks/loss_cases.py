"""The cases of `losses.py`: each loss in kdjax and in plain PyTorch, and its arrays."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses

try:
    import torch_losses as plain
    import torch_table_losses as plain_table
except ImportError:
    plain = plain_table = None

ROWS, WIDTH, NEGATIVES = 10_000, 128, 1024
STAGES = ((64, 32, 32, 64), (64, 16, 16, 128), (64, 8, 8, 256))  # resnet32x4 and resnet8x4
TOKENS, WORDS, TEACHER_WORDS = (4, 32), 32_000, 30_000


class Case(NamedTuple):
    """One loss in kdjax and PyTorch, as functions of the student's arrays and the rest.

    An argument is an array or a tuple of them. Arrays of four axes are maps: channels last for
    kdjax, channels first for PyTorch.
    """

    jax_loss: Callable[..., Any]
    torch_loss: Callable[..., Any] | None
    student: Any
    rest: tuple[Any, ...] = ()
    compare: bool = True  # False if each draws its own random numbers


def contrast_case(rng: np.random.Generator, batch: int) -> Case:
    """Return CRD's case; the memory is an argument in both libraries."""
    labels = rng.integers(0, 100, ROWS)
    memory = losses.contrast_init(jax.random.key(0), labels, width=WIDTH)

    def jax_loss(s: Any, t: Any, own: Any, other: Any, ids: Any) -> Any:
        bank = memory._replace(student=own, teacher=other)
        value, after = losses.contrast_loss(
            s, t, ids, bank, jax.random.key(1), num_negatives=NEGATIVES
        )
        return value, (after.student, after.teacher)

    s, t = (rng.normal(size=(batch, WIDTH)).astype(np.float32) for _ in range(2))
    ids = rng.permutation(ROWS)[:batch].astype(np.int64)
    rest = (t, np.array(memory.student), np.array(memory.teacher), ids)

    def torch_loss(*arrays: Any) -> Any:
        return plain.contrast(*arrays, NEGATIVES)

    return Case(jax_loss, torch_loss, s, rest, compare=False)


def cases(batch: int, classes: int) -> dict[str, Case]:
    """Return the losses of logits, embeddings and maps of B x 8 x 8 x 64 at one size."""
    rng = np.random.default_rng(0)
    s, t, means = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((batch, classes), (batch, classes), (classes, classes))
    )
    y = rng.integers(0, classes, batch)
    shape = (batch, 8, 8, 64)
    maps = rng.normal(size=shape).astype(np.float32), (rng.normal(size=shape).astype(np.float32),)

    def warm(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda s, t: function(s, t, temperature=4.0)

    def stacked(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda s, t, y: function(s, jnp.stack([s, t]), y)

    table = {
        "cross_entropy": (losses.cross_entropy, "cross_entropy", s, (y,)),
        "entropy": (losses.entropy, "entropy", s, ()),
        "forward_kl": (warm(losses.forward_kl), "forward", s, (t,)),
        "reverse_kl": (warm(losses.reverse_kl), "reverse", s, (t,)),
        "jensen_shannon": (warm(losses.jensen_shannon), "jensen_shannon", s, (t,)),
        "total_variation": (warm(losses.total_variation), "total_variation", s, (t,)),
        "weighted_kl": (warm(losses.weighted_kl), "symmetric", s, (t,)),
        "balanced_kl": (warm(losses.balanced_kl), "balanced", s, (t,)),
        "minimum_logit_kl": (stacked(losses.minimum_logit_kl), "minimum_logit", s, (t, y)),
        "least_cross_entropy_kl": (
            stacked(losses.least_cross_entropy_kl), "least_cross_entropy", s, (t, y)
        ),
        "decoupled_kl": (losses.decoupled_kl, "decoupled", s, (t, y)),
        "correlation": (losses.correlation, "correlation", s, (t,)),
        "norm_direction": (losses.norm_direction, "norm_direction", s, (t, means, y)),
        "class_mean_cosine": (losses.class_mean_cosine, "class_mean_cosine", s, (means, y)),
        "stepwise_norm": (losses.stepwise_norm, "stepwise_norm", s, ()),
        "feature_mse": (losses.feature_mse, "mse", *maps),
        "attention_transfer": (losses.attention_transfer, "attention", *maps),
        "hierarchical_context": (losses.hierarchical_context, "hierarchical", *maps),
        "similarity_preserving": (losses.similarity_preserving, "similarity", *maps),
        "relational_distance": (losses.relational_distance, "distance", s, (t,)),
        "relational_angle": (losses.relational_angle, "angle", s, (t,)),
        "probabilistic_knowledge_transfer": (
            losses.probabilistic_knowledge_transfer, "neighbours", s, (t,)
        ),
    }  # fmt: skip
    table_cases = {
        name: Case(jax_loss, getattr(plain, torch_loss, None), student, rest)
        for name, (jax_loss, torch_loss, student, rest) in table.items()
    }
    return table_cases | {"contrast_loss": contrast_case(rng, batch)}


def _over_layers(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Sum a loss of single maps over the layers."""
    return lambda *layers: sum(map(loss, *layers))


def _by_regions(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Let a loss of regions take class maps."""
    return lambda s, t, y: loss(losses.region_logits(s), losses.region_logits(t), y)


def _with_margins(s: Any, t: Any, scale: Any, bias: Any) -> Any:
    """Return OFD with the margins of the teacher's batch norms."""
    return losses.margin_relu_distance(s, t, losses.negative_margin(scale, bias))


def table_cases() -> dict[str, Case]:
    """Return the other losses of the CIFAR-100 tables, and those of language models.

    Batches of 64; maps of the stem and the stages of resnet32x4 and resnet8x4; 100 classes.
    """
    return {
        name: Case(jax_loss, getattr(plain_table, name, None), student, rest)
        for name, (jax_loss, student, *rest) in (_of_images() | _of_tokens()).items()
    }


def _pair(rng: np.random.Generator, *shape: int) -> list[np.ndarray]:
    return [rng.normal(size=shape).astype(np.float32) for _ in range(2)]


def _of_images() -> dict[str, tuple[Any, ...]]:
    """Return the loss in kdjax, the student's arrays and the rest, by name."""
    two = functools.partial(_pair, np.random.default_rng(0))
    s, t = zip(*(two(*shape) for shape in STAGES), strict=True)
    scale, bias = zip(*(two(shape[-1]) for shape in STAGES), strict=True)
    stem, stem_t = two(64, 32, 32, 32)
    (logits, logits_t), (view, view_t), (vector, vector_t) = (
        two(64, 100),
        two(64, 100),
        two(64, 256),
    )
    own, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in two(64, 128))
    (planes, planes_t), (kernel, _) = two(64, 8, 8, 100), two(256, 100)
    y = np.random.default_rng(1).integers(0, 100, 64)
    by_channels = functools.partial(losses.singular_vectors, channels=True)
    return {
        "flow_of_solution": (losses.flow_of_solution, (stem, *s), (stem_t, *t)),
        "neuron_selectivity": (_over_layers(losses.neuron_selectivity), s, t),
        "factor_transfer": (losses.factor_transfer, s[-1], t[-1]),
        "spatial_factor_transfer": (losses.spatial_factor_transfer, s[-1], t[-1]),
        "activation_boundary": (_over_layers(losses.activation_boundary), s, t),
        "variational_information": (_over_layers(losses.variational_information), s, t, bias),
        "margin_relu_distance": (_over_layers(_with_margins), s, t, scale, bias),
        "correlation_congruence": (losses.correlation_congruence, own, other),
        "kernel_correlation_congruence": (losses.kernel_correlation_congruence, own, other),
        "singular_vectors": (losses.singular_vectors, s, t),
        "singular_vectors_by_channels": (by_channels, s[1:], t[1:]),
        "softmax_regression": (losses.softmax_regression, s[-1], t[-1], kernel),
        "log_sum_distance": (losses.log_sum_distance, vector, vector_t),
        "class_activation": (losses.class_activation, planes, planes_t),
        "standardized_kl": (losses.standardized_kl, logits, logits_t),
        "multi_level_kl": (losses.multi_level_kl, logits, logits_t, view, view_t),
        "regional_kl": (_by_regions(losses.regional_kl), planes, planes_t, y),
        "regional_decoupled_kl": (_by_regions(losses.regional_decoupled_kl), planes, planes_t, y),
    }  # fmt: skip


def _of_tokens() -> dict[str, tuple[Any, ...]]:
    """Return the same of 4 x 32 tokens of 32,000 words; of another vocabulary 30,000."""
    two = functools.partial(_pair, np.random.default_rng(0))
    (s, t), (_, other) = two(*TOKENS, WORDS), two(*TOKENS, TEACHER_WORDS)
    labels = np.where(np.arange(TOKENS[1]) < 8, -1, np.zeros(TOKENS, np.int64))
    labels[1, 20:] = -1
    from_tail = functools.partial(losses.adaptive_kl, from_tail=True)
    return {
        "skew_forward_kl": (losses.skew_forward_kl, s, t),
        "skew_reverse_kl": (losses.skew_reverse_kl, s, t),
        "adaptive_kl": (losses.adaptive_kl, s, t),
        "adaptive_kl_from_tail": (from_tail, s, t),
        "jensen_shannon_of_tokens": (losses.jensen_shannon, s, t),
        "universal_logit_distance": (losses.universal_logit_distance, s, other, labels, labels),
        "multi_level_transport": (losses.multi_level_transport, s, other, labels, labels),
    }  # fmt: skip
