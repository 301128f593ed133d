"""Terms that look at logits. To add one: its loss in `losses/`, and three lines here."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax import losses
from kdjax.terms.term import POSITIVE, UNIT, Definition, Scalar, Value
from kdjax.types import Array, Batch, Outputs, Scalars


def _logits(loss: Callable[..., Array]) -> Value:
    """Look at the logits of the player and of one peer; every scalar is a keyword of the loss."""
    return lambda own, peers, batch, scalars: loss(own.logits, peers[0].logits, **scalars)


TEMPERATURE = {"temperature": Scalar(1.0, POSITIVE)}


def cross_entropy() -> Definition:
    """Cross-entropy with the labels; `label_smoothing` in [0, 1)."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        return losses.cross_entropy(own.logits, batch["label"], **scalars)

    return Definition(value, {"label_smoothing": Scalar(0.0, (-1e-9, 1.0))}, peers="none")


def forward_kl() -> Definition:
    """KL(peer || own), times T^2: Hinton's distillation, DML, the teacher's side of BD-KD."""
    return Definition(_logits(losses.forward_kl), TEMPERATURE, squared=True)


def reverse_kl() -> Definition:
    """KL(own || peer), times T^2."""
    return Definition(_logits(losses.reverse_kl), TEMPERATURE, squared=True)


def jensen_shannon() -> Definition:
    """Generalised Jensen-Shannon divergence, times T^2; `mixture` is the loss's `weight`."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        temperature, mixture = scalars["temperature"], scalars["mixture"]
        return losses.jensen_shannon(
            own.logits, peers[0].logits, temperature=temperature, weight=mixture
        )

    return Definition(value, {**TEMPERATURE, "mixture": Scalar(0.5, UNIT)}, squared=True)


def total_variation() -> Definition:
    """Total variation distance. Its gradient falls as 1/T, so that T^2 is off by default."""
    return Definition(_logits(losses.total_variation), TEMPERATURE)


def balanced_kl() -> Definition:
    """BD-KD's student side: both KLs, weighted per sample by the entropy gap, times T^2."""
    scalars = {"emphasis": Scalar(2.0, POSITIVE), "entropy_temperature": Scalar(1.0, POSITIVE)}
    return Definition(_logits(losses.balanced_kl), {**TEMPERATURE, **scalars}, squared=True)


def weighted_kl() -> Definition:
    """BD-KD's ablations: forward and reverse KL at fixed weights, times T^2."""
    scalars = {"forward_weight": Scalar(1.0), "reverse_weight": Scalar(1.0)}
    return Definition(_logits(losses.weighted_kl), {**TEMPERATURE, **scalars}, squared=True)


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
    return Definition(_logits(losses.correlation), scalars, squared=True, coupled=True)
