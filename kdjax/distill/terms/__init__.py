"""Terms: the losses that a player minimises, each with the outputs that it reads."""

from collections.abc import Callable, Mapping

from kdjax.distill.terms.critic_spec import Critic, InputPenalty, PlayerInputs, feature_width
from kdjax.distill.terms.detection import anchor_smooth_l1, binary_cross_entropy, box_smooth_l1
from kdjax.distill.terms.features import (
    attention_transfer,
    class_mean_cosine,
    class_means_name,
    feature_mse,
    norm_direction,
    probabilistic_knowledge_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
    stepwise_norm,
)
from kdjax.distill.terms.logits import (
    balanced_kl,
    correlation,
    cross_entropy,
    decoupled_kl,
    forward_kl,
    jensen_shannon,
    label_logit_mse,
    least_cross_entropy_kl,
    logit_mse,
    minimum_logit_kl,
    reverse_kl,
    soft_cross_entropy,
    total_variation,
    weighted_kl,
)
from kdjax.distill.terms.review import hierarchical_context
from kdjax.distill.terms.schedules import TemperatureSchedule, WeightSchedule, sigmoid_schedule
from kdjax.distill.terms.sinkhorn import sinkhorn, sinkhorn_divergence
from kdjax.distill.terms.spec import Scalar, Term, TermSpec, check_domain, make_term

TERM_SPECS: Mapping[str, Callable[..., TermSpec]] = {
    "ce": cross_entropy,
    "label_logit_mse": label_logit_mse,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "total_variation": total_variation,
    "soft_cross_entropy": soft_cross_entropy,
    "logit_mse": logit_mse,
    "sinkhorn": sinkhorn,
    "sinkhorn_divergence": sinkhorn_divergence,
    "balanced_kl": balanced_kl,
    "weighted_kl": weighted_kl,
    "minimum_logit_kl": minimum_logit_kl,
    "least_cross_entropy_kl": least_cross_entropy_kl,
    "decoupled_kl": decoupled_kl,
    "correlation": correlation,
    "feature_mse": feature_mse,
    "attention_transfer": attention_transfer,
    "similarity_preserving": similarity_preserving,
    "relational_distance": relational_distance,
    "relational_angle": relational_angle,
    "probabilistic_knowledge_transfer": probabilistic_knowledge_transfer,
    "norm_direction": norm_direction,
    "class_mean_cosine": class_mean_cosine,
    "stepwise_norm": stepwise_norm,
    "hierarchical_context": hierarchical_context,
    "binary_cross_entropy": binary_cross_entropy,
    "anchor_smooth_l1": anchor_smooth_l1,
    "box_smooth_l1": box_smooth_l1,
}

__all__ = [  # and the functions of TERM_SPECS
    "TERM_SPECS",
    "Critic",
    "InputPenalty",
    "PlayerInputs",
    "Scalar",
    "TemperatureSchedule",
    "Term",
    "TermSpec",
    "WeightSchedule",
    "check_domain",
    "class_means_name",
    "feature_width",
    "make_term",
    "sigmoid_schedule",
]
