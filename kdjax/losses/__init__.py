"""Losses: plain functions on arrays, student first, teacher second, then keyword-only scalars.

They return one float32 number an example, in nats where it is an information; they never
average, weight or multiply by T^2. The few that couple the batch return one number and say so.
"""

from kdjax.losses.boxes import binary_cross_entropy, smooth_l1
from kdjax.losses.contrastive import ContrastMemory, contrast_init, contrast_loss
from kdjax.losses.decoupled import correlation, decoupled_kl
from kdjax.losses.dependency import dual_dependency, gradient_penalty, predictive_coding
from kdjax.losses.divergence import (
    balanced_kl,
    cross_entropy,
    entropy,
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    soft_cross_entropy,
    total_variation,
    weighted_kl,
)
from kdjax.losses.feature import (
    attention_transfer,
    class_mean_cosine,
    feature_mse,
    hierarchical_context,
    norm_direction,
    stepwise_norm,
)
from kdjax.losses.online import (
    SwitchSignal,
    least_cross_entropy_kl,
    minimum_logit_kl,
    switch_signal,
)
from kdjax.losses.relation import (
    probabilistic_knowledge_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
)
from kdjax.losses.sinkhorn import SinkhornOutput, sinkhorn, sinkhorn_divergence

__all__ = [
    "ContrastMemory",
    "SinkhornOutput",
    "SwitchSignal",
    "attention_transfer",
    "balanced_kl",
    "binary_cross_entropy",
    "class_mean_cosine",
    "contrast_init",
    "contrast_loss",
    "correlation",
    "cross_entropy",
    "decoupled_kl",
    "dual_dependency",
    "entropy",
    "feature_mse",
    "forward_kl",
    "gradient_penalty",
    "hierarchical_context",
    "jensen_shannon",
    "least_cross_entropy_kl",
    "logit_mse",
    "minimum_logit_kl",
    "norm_direction",
    "predictive_coding",
    "probabilistic_knowledge_transfer",
    "relational_angle",
    "relational_distance",
    "reverse_kl",
    "similarity_preserving",
    "sinkhorn",
    "sinkhorn_divergence",
    "smooth_l1",
    "soft_cross_entropy",
    "stepwise_norm",
    "switch_signal",
    "total_variation",
    "weighted_kl",
]
