"""Terms that read logits. To add one, add its loss in `losses/` and three lines here.

Rows are examples, or the tokens of a language model, over which a term averages. Terms with a
`layer` also take "token_logits": the loss of each token, averaged over the real tokens of an
example, then over the examples; and `chunk`, see `token_head`. They also take a feature with other
logits of the student, "class_logits" or "distillation_logits" of a DeiT, in place of its logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    UNIT,
    VIEW_LOGITS,
    Scalar,
    Teachers,
    TermSpec,
)
from kdjax.distill.terms.token_head import in_chunks
from kdjax.distill.terms.tokens import (
    TARGETS,
    example_means,
    logits_at,
    pairwise,
    row_kind,
    token_features,
)
from kdjax.types import Array, Batch, Outputs, Scalars

TEMPERATURE = {"temperature": Scalar(1.0, POSITIVE)}
DECOUPLED = {
    "alpha": Scalar(1.0, NOT_NEGATIVE),
    "beta": Scalar(8.0, NOT_NEGATIVE),
    "temperature": Scalar(4.0, POSITIVE),
}
_OWN_LOGITS = ("class_logits", "distillation_logits")  # of `vit.vit`


def cross_entropy(layer: str = "", chunk: int = 0) -> TermSpec:
    """Cross-entropy with the labels, or with "token_targets"; `label_smoothing` in [0, 1)."""
    layer, own = _split_layer(layer)

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        labels = student.features[TARGETS] if layer else batch["label"]
        values = losses.cross_entropy(logits_at(student, layer), labels, **scalars)
        return example_means(values, student, layer)

    smoothing = {"label_smoothing": Scalar(0.0, FRACTION)}
    reads: dict[str, Any] = {"layers": token_features(layer, targets=True), "own_logits": own}
    spec = TermSpec(loss_fn, smoothing, teachers="none", rows=row_kind(layer), **reads)
    return in_chunks(spec, losses.cross_entropy, layer, chunk)


def label_logit_mse() -> TermSpec:
    """(z - label)^2 of a regression, whose single logit z is the value."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        label = jnp.asarray(batch["label"], jnp.float32)[:, None]
        return losses.logit_mse(student.logits, label)

    return TermSpec(loss_fn, {}, teachers="none")


def forward_kl(layer: str = "", chunk: int = 0) -> TermSpec:
    """KL(teacher || student), times T^2: Hinton's KD, DML, the teacher's side of BD-KD."""
    return _divergence(losses.forward_kl, layer, chunk, scale_by_temperature_squared=True)


def reverse_kl(layer: str = "", chunk: int = 0) -> TermSpec:
    """KL(student || teacher), times T^2."""
    return _divergence(losses.reverse_kl, layer, chunk, scale_by_temperature_squared=True)


def soft_cross_entropy(layer: str = "", chunk: int = 0) -> TermSpec:
    """-sum p_teacher log p_student, without T^2: SinKD's distillation on GLUE."""
    return _divergence(losses.soft_cross_entropy, layer, chunk)


def hard_cross_entropy(layer: str = "", chunk: int = 0) -> TermSpec:
    """Cross-entropy with the teacher's most probable class: DeiT's hard distillation."""
    layer, own = _split_layer(layer)
    loss_fn = pairwise(losses.hard_cross_entropy, layer)
    smoothing = {"label_smoothing": Scalar(0.0, FRACTION)}
    layers, rows = token_features(layer), row_kind(layer)
    spec = TermSpec(loss_fn, smoothing, layers=layers, own_logits=own, rows=rows)
    return in_chunks(spec, losses.hard_cross_entropy, layer, chunk)


def logit_mse() -> TermSpec:
    """Mean squared error of logits / T, without T^2: for regressions."""
    return _divergence(losses.logit_mse)


def total_variation(layer: str = "", chunk: int = 0) -> TermSpec:
    """Total variation distance. Its gradient falls as 1/T, so T^2 is off by default."""
    return _divergence(losses.total_variation, layer, chunk)


def jensen_shannon(layer: str = "", chunk: int = 0) -> TermSpec:
    """Generalised Jensen-Shannon divergence, times T^2; `mixture` is the loss's `weight`."""

    def loss(student: Array, teacher: Array, *, temperature: Any, mixture: Any) -> Array:
        return losses.jensen_shannon(student, teacher, temperature=temperature, weight=mixture)

    mixture = {"mixture": Scalar(0.5, UNIT)}
    return _divergence(loss, layer, chunk, scalars=mixture, scale_by_temperature_squared=True)


def balanced_kl() -> TermSpec:
    """BD-KD's student side: both KLs, weighted per example by the entropy gap, times T^2."""
    scalars = {"emphasis": Scalar(2.0, POSITIVE), "entropy_temperature": Scalar(1.0, POSITIVE)}
    return _divergence(losses.balanced_kl, scalars=scalars, scale_by_temperature_squared=True)


def weighted_kl() -> TermSpec:
    """BD-KD's ablations: forward and reverse KL at fixed weights, times T^2."""
    weight = Scalar(1.0, NOT_NEGATIVE)
    scalars = {"forward_weight": weight, "reverse_weight": weight}
    return _divergence(losses.weighted_kl, scalars=scalars, scale_by_temperature_squared=True)


def standardized_kl() -> TermSpec:
    """Logit standardization: KL(teacher || student) of z-scores, times T^2; default weight 9."""
    scalars = {"weight": Scalar(9.0), "temperature": Scalar(2.0, POSITIVE)}
    return _divergence(losses.standardized_kl, scalars=scalars, scale_by_temperature_squared=True)


def skew_forward_kl(layer: str = "", chunk: int = 0) -> TermSpec:
    """KL(teacher || mixture), a share `alpha` of the teacher in the mixture, times T^2."""
    scalars = {"alpha": Scalar(0.1, UNIT)}
    return _divergence(
        losses.skew_forward_kl, layer, chunk, scalars=scalars, scale_by_temperature_squared=True
    )


def skew_reverse_kl(layer: str = "", chunk: int = 0) -> TermSpec:
    """KL(student || mixture), a share `alpha` of the student in the mixture, times T^2."""
    scalars = {"alpha": Scalar(0.1, UNIT)}
    return _divergence(
        losses.skew_reverse_kl, layer, chunk, scalars=scalars, scale_by_temperature_squared=True
    )


def adaptive_kl(layer: str = "", from_tail: bool = False, chunk: int = 0) -> TermSpec:
    """AKL: forward KL for the head of the teacher's distribution, reverse for its tail, times T^2.

    `from_tail`: as in `losses.adaptive_kl`.
    """

    def loss(student: Array, teacher: Array, *, temperature: Any) -> Array:
        return losses.adaptive_kl(student, teacher, from_tail=from_tail, temperature=temperature)

    return _divergence(loss, layer, chunk, scale_by_temperature_squared=True)


def multi_level_kl() -> TermSpec:
    """MLLD: two views at five temperatures, per instance, class and batch; default weight .9."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        views = student.features[VIEW_LOGITS], teachers[0].features[VIEW_LOGITS]
        return losses.multi_level_kl(student.logits, teachers[0].logits, *views, **scalars)

    scalars = {"weight": Scalar(0.9), "temperature": Scalar(4.0, POSITIVE)}
    return TermSpec(loss_fn, scalars, coupled=True, layers=((VIEW_LOGITS, VIEW_LOGITS),))


def view_cross_entropy() -> TermSpec:
    """Cross-entropy of the second view, which MLLD adds to the first view's."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return losses.cross_entropy(student.features[VIEW_LOGITS], batch["label"])

    return TermSpec(loss_fn, {}, teachers="none", layers=((VIEW_LOGITS, VIEW_LOGITS),))


def correlation() -> TermSpec:
    """DIST: Pearson correlation of rows and of columns of the batch, times T^2."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return losses.correlation(student.logits, teachers[0].logits, mask=batch["mask"], **scalars)

    weight = Scalar(1.0, NOT_NEGATIVE)
    scalars = {**TEMPERATURE, "beta": weight, "gamma": weight}
    return TermSpec(loss_fn, scalars, coupled=True, scale_by_temperature_squared=True)


def _divergence(
    loss: Callable[..., Array],
    layer: str = "",
    chunk: int = 0,
    *,
    scalars: Mapping[str, Scalar] | None = None,
    scale_by_temperature_squared: bool = False,
) -> TermSpec:
    """Compare logits at a temperature with one teacher."""
    layer, own = _split_layer(layer)
    spec = TermSpec(
        pairwise(loss, layer),
        {**TEMPERATURE, **(scalars or {})},
        scale_by_temperature_squared=scale_by_temperature_squared,
        layers=token_features(layer),
        own_logits=own,
        rows=row_kind(layer),
    )
    return in_chunks(spec, loss, layer, chunk)


def _split_layer(layer: str) -> tuple[str, str]:
    """Return the layer of both players, and the student's feature that replaces its logits."""
    return ("", layer) if layer in _OWN_LOGITS else (layer, "")


def minimum_logit_kl() -> TermSpec:
    """KDCL: towards the class-wise minimum of all players' logits, times T^2."""
    return _ensemble(losses.minimum_logit_kl)


def least_cross_entropy_kl() -> TermSpec:
    """KDCL's naive variant: towards the player with the least cross-entropy, times T^2."""
    return _ensemble(losses.least_cross_entropy_kl)


def _ensemble(loss: Callable[..., Array]) -> TermSpec:
    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        logits = jnp.stack([student.logits, *(teacher.logits for teacher in teachers)])
        return loss(student.logits, logits, batch["label"], **scalars)

    scalars = {"temperature": Scalar(2.0, POSITIVE)}
    return TermSpec(loss_fn, scalars, teachers="all", scale_by_temperature_squared=True)


def decoupled_kl() -> TermSpec:
    """DKD: target and other classes separately, times T^2; alpha, beta and T are CIFAR's."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        return losses.decoupled_kl(student.logits, teachers[0].logits, batch["label"], **scalars)

    return TermSpec(loss_fn, DECOUPLED, scale_by_temperature_squared=True)
