"""Losses: plain functions on arrays, student first, teacher second, then keyword-only scalars.

They return one float32 number per example; information is in nats. They never average, weight or
multiply by T^2. The docstrings of the few that couple the batch say so; these return one number.
"""

from kdjax.losses.boxes import binary_cross_entropy, smooth_l1
from kdjax.losses.classifier import (
    class_activation,
    region_logits,
    regional_decoupled_kl,
    regional_kl,
    softmax_regression,
)
from kdjax.losses.consecutive import flow_of_solution, singular_vectors
from kdjax.losses.contrastive import ContrastMemory, contrast_init, contrast_loss
from kdjax.losses.decoupled import correlation, decoupled_kl
from kdjax.losses.dependency import dual_dependency, gradient_penalty, predictive_coding
from kdjax.losses.divergence import (
    balanced_kl,
    cross_entropy,
    entropy,
    forward_kl,
    hard_cross_entropy,
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
from kdjax.losses.logit_variants import multi_level_kl, standardized_kl
from kdjax.losses.maps import (
    activation_boundary,
    factor_transfer,
    margin_relu_distance,
    match_maps,
    negative_margin,
    neuron_selectivity,
    spatial_factor_transfer,
    variational_information,
)
from kdjax.losses.online import (
    SwitchSignal,
    least_cross_entropy_kl,
    minimum_logit_kl,
    switch_signal,
)
from kdjax.losses.relation import (
    correlation_congruence,
    kernel_correlation_congruence,
    log_sum_distance,
    probabilistic_knowledge_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
)
from kdjax.losses.sinkhorn import SinkhornOutput, sinkhorn, sinkhorn_divergence
from kdjax.losses.tokens import adaptive_kl, skew_forward_kl, skew_reverse_kl
from kdjax.losses.vocabularies import multi_level_transport, universal_logit_distance

__all__ = [
    "ContrastMemory",
    "SinkhornOutput",
    "SwitchSignal",
    "activation_boundary",
    "adaptive_kl",
    "attention_transfer",
    "balanced_kl",
    "binary_cross_entropy",
    "class_activation",
    "class_mean_cosine",
    "contrast_init",
    "contrast_loss",
    "correlation",
    "correlation_congruence",
    "cross_entropy",
    "decoupled_kl",
    "dual_dependency",
    "entropy",
    "factor_transfer",
    "feature_mse",
    "flow_of_solution",
    "forward_kl",
    "gradient_penalty",
    "hard_cross_entropy",
    "hierarchical_context",
    "jensen_shannon",
    "kernel_correlation_congruence",
    "least_cross_entropy_kl",
    "log_sum_distance",
    "logit_mse",
    "margin_relu_distance",
    "match_maps",
    "minimum_logit_kl",
    "multi_level_kl",
    "multi_level_transport",
    "negative_margin",
    "neuron_selectivity",
    "norm_direction",
    "predictive_coding",
    "probabilistic_knowledge_transfer",
    "region_logits",
    "regional_decoupled_kl",
    "regional_kl",
    "relational_angle",
    "relational_distance",
    "reverse_kl",
    "similarity_preserving",
    "singular_vectors",
    "sinkhorn",
    "sinkhorn_divergence",
    "skew_forward_kl",
    "skew_reverse_kl",
    "smooth_l1",
    "soft_cross_entropy",
    "softmax_regression",
    "spatial_factor_transfer",
    "standardized_kl",
    "stepwise_norm",
    "switch_signal",
    "total_variation",
    "universal_logit_distance",
    "variational_information",
    "weighted_kl",
]
