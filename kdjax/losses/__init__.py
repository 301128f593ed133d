"""Losses: plain functions on arrays, student first, teacher second, then keyword-only scalars.

They return one float32 number an example, in nats where it is an information; they never
average, weight or multiply by T^2.
"""

from kdjax.losses.divergence import (
    balanced_kl,
    cross_entropy,
    entropy,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    total_variation,
    weighted_kl,
)
from kdjax.losses.feature import feature_mse
from kdjax.losses.peers import (
    SwitchSignal,
    least_cross_entropy_kl,
    minimum_logit_kl,
    switch_signal,
)

__all__ = [
    "SwitchSignal",
    "balanced_kl",
    "cross_entropy",
    "entropy",
    "feature_mse",
    "forward_kl",
    "jensen_shannon",
    "least_cross_entropy_kl",
    "minimum_logit_kl",
    "reverse_kl",
    "switch_signal",
    "total_variation",
    "weighted_kl",
]
