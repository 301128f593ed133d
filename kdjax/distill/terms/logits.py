"""Terms that look at logits. To add one: its loss in `losses/`, and three lines here.

Those with a `layer` take "token_logits" as well: the loss of each token, averaged over the real
tokens of an example, then over the examples.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import POSITIVE, UNIT, Definition, Scalar
from kdjax.distill.terms.tokens import TARGETS, example_means, logits_at, looked_at, pairwise
from kdjax.types import Array, Batch, Outputs, Scalars

TEMPERATURE = {"temperature": Scalar(1.0, POSITIVE)}


def cross_entropy(layer: str = "") -> Definition:
    """Cross-entropy with the labels, or with "token_targets"; `label_smoothing` in [0, 1)."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        labels = own.features[TARGETS] if layer else batch["label"]
        found = losses.cross_entropy(logits_at(own, layer), labels, **scalars)
        return example_means(found, own, layer)

    smoothing = {"label_smoothing": Scalar(0.0, (-1e-9, 1.0))}
    return Definition(value, smoothing, peers="none", layers=looked_at(layer, targets=True))


def squared_error() -> Definition:
    """(z - label)^2 of a regression, whose one logit is the value."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        label = jnp.asarray(batch["label"], jnp.float32)[:, None]
        return losses.logit_mse(own.logits, label)

    return Definition(value, {}, peers="none")


def forward_kl(layer: str = "") -> Definition:
    """KL(peer || own), times T^2: Hinton's distillation, DML, the teacher's side of BD-KD."""
    return _divergence(losses.forward_kl, layer, squared=True)


def reverse_kl(layer: str = "") -> Definition:
    """KL(own || peer), times T^2."""
    return _divergence(losses.reverse_kl, layer, squared=True)


def soft_cross_entropy(layer: str = "") -> Definition:
    """-sum p_peer log p_own, without T^2: SinKD's distillation on GLUE."""
    return _divergence(losses.soft_cross_entropy, layer)


def logit_mse() -> Definition:
    """Mean squared error of logits / T, without T^2: for regressions."""
    return _divergence(losses.logit_mse, "")


def _divergence(loss: Callable[..., Array], layer: str, *, squared: bool = False) -> Definition:
    value = pairwise(loss, layer)
    return Definition(value, TEMPERATURE, squared=squared, layers=looked_at(layer))


def jensen_shannon(layer: str = "") -> Definition:
    """Generalised Jensen-Shannon divergence, times T^2; `mixture` is the loss's `weight`."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        temperature, mixture = scalars["temperature"], scalars["mixture"]
        found = losses.jensen_shannon(
            logits_at(own, layer),
            logits_at(peers[0], layer),
            temperature=temperature,
            weight=mixture,
        )
        return example_means(found, own, layer)

    scalars = {**TEMPERATURE, "mixture": Scalar(0.5, UNIT)}
    return Definition(value, scalars, squared=True, layers=looked_at(layer))


def total_variation(layer: str = "") -> Definition:
    """Total variation distance. Its gradient falls as 1/T, so that T^2 is off by default."""
    return _divergence(losses.total_variation, layer)


def balanced_kl() -> Definition:
    """BD-KD's student side: both KLs, weighted per sample by the entropy gap, times T^2."""
    scalars = {"emphasis": Scalar(2.0, POSITIVE), "entropy_temperature": Scalar(1.0, POSITIVE)}
    return Definition(pairwise(losses.balanced_kl), {**TEMPERATURE, **scalars}, squared=True)


def weighted_kl() -> Definition:
    """BD-KD's ablations: forward and reverse KL at fixed weights, times T^2."""
    scalars = {"forward_weight": Scalar(1.0), "reverse_weight": Scalar(1.0)}
    return Definition(pairwise(losses.weighted_kl), {**TEMPERATURE, **scalars}, squared=True)


def _ensemble(loss: Callable[..., Array]) -> Definition:
    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        logits = jnp.stack([own.logits, *(peer.logits for peer in peers)])
        return loss(own.logits, logits, batch["label"], **scalars)

    return Definition(value, {"temperature": Scalar(2.0, POSITIVE)}, peers="all", squared=True)


def minimum_logit() -> Definition:
    """KDCL: towards the class-wise minimum of all players' logits, times T^2."""
    return _ensemble(losses.minimum_logit_kl)


def best_peer() -> Definition:
    """KDCL's naive variant: towards the player with the least cross-entropy, times T^2."""
    return _ensemble(losses.least_cross_entropy_kl)


def decoupled_kl() -> Definition:
    """DKD: target and non-target classes apart, times T^2; CIFAR's alpha, beta and T."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.decoupled_kl(own.logits, peers[0].logits, batch["label"], **scalars)

    scalars = {"alpha": Scalar(1.0), "beta": Scalar(8.0), "temperature": Scalar(4.0, POSITIVE)}
    return Definition(value, scalars, squared=True)


def correlation() -> Definition:
    """DIST: Pearson correlation of rows and of columns of the batch, times T^2."""
    scalars = {"beta": Scalar(1.0), "gamma": Scalar(1.0), **TEMPERATURE}
    return Definition(pairwise(losses.correlation), scalars, squared=True, coupled=True)
