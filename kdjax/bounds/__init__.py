"""Information-theoretic generalization bounds, for formulas, tiny learners and trained networks.

Every function's first line states the kind of its value: an exact number, an upper bound, a lower
value, an estimate or a proxy. Information is in nats, bounds are in the unit of the loss.
"""

from kdjax.bounds.contraction import (
    activation_diameter,
    contraction_product,
    dropconnect_contraction,
    dropout_contraction,
    finite_parameter_bound,
    gaussian_noise_contraction,
    label_aware_bound,
    log_parameter_count,
)
from kdjax.bounds.convolution_norm import convolution_bound, convolution_norm_exact
from kdjax.bounds.entropic import EntropicCost, transport_entropic, wasserstein_entropic
from kdjax.bounds.enumeration import Experiment, Findings, enumerate_learner, sign_network
from kdjax.bounds.estimators import (
    donsker_varadhan,
    info_nce,
    kl_bound_proxy,
    knn_kl,
    knn_kl_by_class,
    ksg_mutual_information,
    nguyen_wainwright_jordan,
)
from kdjax.bounds.gaussian import (
    Risks,
    gaussian_kl,
    gaussian_kl_bound,
    gaussian_layer_kl,
    gaussian_layer_w2_squared,
    gaussian_risks,
    gaussian_w2_squared,
    gaussian_wasserstein_bound,
)
from kdjax.bounds.gibbs import gibbs_bound, gibbs_generalization
from kdjax.bounds.hierarchical import funnel_layer, kl_bound, wasserstein_bound
from kdjax.bounds.inequalities import Inequality, chain
from kdjax.bounds.lipschitz import (
    OperatorNorm,
    absolute_product_bound,
    activation_pattern_bound,
    lipschitz_tails,
    operator_norm,
    operator_norm_exact,
    product_bound,
    residual_bound,
)
from kdjax.bounds.reference_dependency import (
    DependencyBracket,
    dependency_exact,
    dependency_of_sample,
    dependency_total_variation,
    gaussian_dependency_bracket,
)
from kdjax.bounds.transport import (
    baseline,
    kantorovich_value,
    labelled_cost,
    sliced_wasserstein,
    transport_exact,
    wasserstein_1d,
    wasserstein_exact,
)

__all__ = [
    "DependencyBracket",
    "EntropicCost",
    "Experiment",
    "Findings",
    "Inequality",
    "OperatorNorm",
    "Risks",
    "absolute_product_bound",
    "activation_diameter",
    "activation_pattern_bound",
    "baseline",
    "chain",
    "contraction_product",
    "convolution_bound",
    "convolution_norm_exact",
    "dependency_exact",
    "dependency_of_sample",
    "dependency_total_variation",
    "donsker_varadhan",
    "dropconnect_contraction",
    "dropout_contraction",
    "enumerate_learner",
    "finite_parameter_bound",
    "funnel_layer",
    "gaussian_dependency_bracket",
    "gaussian_kl",
    "gaussian_kl_bound",
    "gaussian_layer_kl",
    "gaussian_layer_w2_squared",
    "gaussian_noise_contraction",
    "gaussian_risks",
    "gaussian_w2_squared",
    "gaussian_wasserstein_bound",
    "gibbs_bound",
    "gibbs_generalization",
    "info_nce",
    "kantorovich_value",
    "kl_bound",
    "kl_bound_proxy",
    "knn_kl",
    "knn_kl_by_class",
    "ksg_mutual_information",
    "label_aware_bound",
    "labelled_cost",
    "lipschitz_tails",
    "log_parameter_count",
    "nguyen_wainwright_jordan",
    "operator_norm",
    "operator_norm_exact",
    "product_bound",
    "residual_bound",
    "sign_network",
    "sliced_wasserstein",
    "transport_entropic",
    "transport_exact",
    "wasserstein_1d",
    "wasserstein_bound",
    "wasserstein_entropic",
    "wasserstein_exact",
]
