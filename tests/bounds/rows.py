"""Contract rows of kdjax.bounds: a valid call and invalid calls for each public name."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import bounds

NAN, INF = math.nan, math.inf
POINTS = np.random.default_rng(0).normal(size=(2, 8, 2))
X, Y = POINTS
TINY = bounds.sign_network([1, 1], size=1, inverse_temperature=1.0)


class Row(NamedTuple):
    args: tuple
    words: str  # the word for the value in the docstring
    refused: tuple[tuple[tuple, dict, str], ...]
    options: Mapping[str, Any] = MappingProxyType({})
    closed: bool = False


def bad(*args, say, **options):
    return args, options, say


ROWS = {
    "absolute_product_bound": Row(
        ([np.ones((3, 2)), np.ones((1, 3))],), "Upper bound",
        (bad([np.ones((3, 2)), np.ones((1, 2))], say="layer 1 takes 2"), bad([], say="at least")),
    ),
    "activation_diameter": Row(
        (1.0, 4), "Diameter", (bad(INF, 4, say="ReLU"), bad(1.0, 0, say="width")), closed=True
    ),
    "activation_pattern_bound": Row(
        ([np.ones((3, 2)), np.ones((1, 3))],), "Upper bound",
        (bad([np.ones((15, 2)), np.ones((1, 15))], say="15 hidden units"),
         bad([[[NAN]]], say="finite")),
    ),
    "baseline": Row(
        (X, Y, bounds.wasserstein_exact), "same sizes|sizes are the same",
        (bad(X, Y, bounds.wasserstein_exact, seed=0, draws=0, say="draws"),),
        {"seed": 0},
    ),
    "chain": Row((TINY,), "exact", (bad(TINY._replace(size=0), say="size"),)),
    "contraction_product": Row(
        ([0.5, 0.5],), "upper value", (bad([0.5, 1.1], say="[0, 1], got 1.1"),), closed=True
    ),
    "convolution_bound": Row(
        (np.ones((3, 3, 2, 4)), (4, 4)), "Upper bound",
        (bad(np.ones((3, 3, 2)), (4, 4), say="kernel"), bad([[[[NAN]]]], (4, 4), say="finite"),
         bad([[[[1.0]]]], (4, 0), say="shape"), bad([[[[1.0]]]], (4, 4), stride=0, say="stride"),
         bad(np.ones((3, 3, 2, 4)), (4, 4), groups=3, say="divide the 4")),
        {"stride": 2, "groups": 2},
    ),
    "convolution_norm_exact": Row(
        (np.ones((3, 3, 2, 4)), (4, 4)), "exact",
        (bad(np.ones((3, 3, 2, 4)), (64, 64), say="convolution_bound"),
         bad(np.ones((3, 3, 2, 4)), (4, 4), groups=3, say="divide the 4")),
        {"stride": 2, "groups": 2},
    ),
    "dependency_exact": Row(
        ([[0.5, 0], [0, 0.5]], [[0.0], [1.0]], [[0.0], [1.0]]), "Exact",
        (bad([[0.5, 0], [0, 0.4]], [[0.0], [1.0]], [[0.0], [1.0]], say="sum to 1"),
         bad([[0.5, 0.5]], [[0.0], [1.0]], [[0.0], [1.0]], say="x: must be 1 finite"),
         bad([[1.0]], [[0.0]], [[0.0]], metric="cosine", say="metric")),
    ),
    "dependency_of_sample": Row(
        (X, Y), "exact", (bad(X[:1], Y[:1], say="1 pairs"), bad(X, Y[:3], say="y: must be 8"))
    ),
    "dependency_total_variation": Row(
        ([[0.5, 0], [0, 0.5]],), "0-1 metric", (bad([[1.0, -0.5]], say="probabilities"),
                                               bad([1.0], say="shape"))
    ),
    "donsker_varadhan": Row(
        ([1.0, 2.0], [0.0, 1.0]), "lower value", (bad([], [0.0], say="joint_scores"),), closed=True
    ),
    "dropconnect_contraction": Row(
        (0.5, 2, 3), "attained",
        (bad(-0.1, 2, 3, say="q"), bad(0.5, 1.5, 3, say="d_out"), bad(0.5, 2, 0, say="d_in")),
        closed=True,
    ),
    "dropout_contraction": Row(
        (0.5, 2), "attained", (bad(1.5, 2, say="[0, 1], got 1.5"), bad(0.5, 0, say="width")),
        closed=True,
    ),
    "enumerate_learner": Row(
        (TINY,), "exact",
        (bad(TINY._replace(law=[[0.5, 0.4]]), say="law"),
         bad(TINY._replace(loss=[[0.0]]), say="loss"),
         bad(TINY._replace(channels=[np.ones((1, 3, 2)) / 2]), say="channel 1"),
         bad(TINY._replace(inverse_temperature=0.0), say="inverse_temperature"),
         bad(TINY._replace(size=40), say="at most")),
    ),
    "finite_parameter_bound": Row(
        ([0.1, 0.2], 3.0, [0.5]), "Upper bound",
        (bad([0.1], 3.0, [2.0], sub_gaussian=0.5, say="coefficients"),
         bad([0.1], 3.0, [0.5], sub_gaussian=0.0, say="sub_gaussian"),
         bad([0.1], 3.0, [0.5], sub_gaussian=0.5, noise_at_test=False, say="noise_at_test")),
        {"sub_gaussian": 0.5}, closed=True,
    ),
    "funnel_layer": Row(([3.0, 1.0, 2.0],), "argmin", (bad([NAN], say="values"),), closed=True),
    "gaussian_kl": Row(
        ([0.0, 1.0], np.eye(2), [1.0, 0.0], 2 * np.eye(2)), "exact",
        (bad([0.0], [[0.0]], [0.0], [[1.0]], say="first Gaussian"),
         bad([0.0], [[1.0]], [0.0], [[NAN]], say="finite"),
         bad([0.0, 0.0], np.eye(2), [0.0], [[1.0]], say="widths"),
         bad([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], [0.0, 0.0], np.eye(2), say="symmetric")),
        closed=True,
    ),
    "gaussian_kl_bound": Row(
        (2, 10), "Upper bound",
        (bad(2, 10, sub_gaussian=0.5, independent=False, say="independent"),
         bad(2, 10, sub_gaussian=-1.0, say="sub_gaussian")),
        {"sub_gaussian": 0.5}, closed=True,
    ),
    "gaussian_layer_kl": Row(
        (2, 10), "exact",
        (bad(2, 10, independent=False, say="independent"), bad(2, 1, say="n: "),
         bad(-1, 10, say="rank")),
        closed=True,
    ),
    "gaussian_layer_w2_squared": Row(
        (2.0, 1.0, 10), "Exact",
        (bad(2.0, 0.0, 10, say="sigma"), bad(-2.0, 1.0, 10, say="frobenius"),
         bad(2.0, 1.0, 10, independent=False, say="independent")),
        closed=True,
    ),
    "gaussian_noise_contraction": Row(
        (1.0, 0.5), "Upper bound",
        (bad(INF, 1.0, say="unbounded"), bad(1.0, 0.0, say="sigma"), bad(1.0, -1.0, say="sigma")),
        closed=True,
    ),
    "gaussian_risks": Row(
        ([1.0, 2.0], [1.0, 1.0], 1.0, 5), "exact",
        (bad([1.0], [1.0, 1.0], 1.0, 5, say="estimate"), bad([1.0], [1.0], 0.0, 5, say="sigma"),
         bad([1.0], [1.0], 1.0, 1, say="n: ")),
    ),
    "gaussian_w2_squared": Row(
        ([0.0, 1.0], np.eye(2), [1.0, 0.0], 2 * np.eye(2)), "exact",
        (bad([0.0], [[-1.0]], [0.0], [[1.0]], say="semidefinite"),
         bad([0.0], np.eye(2), [0.0], [[1.0]], say="first Gaussian")),
        closed=True,
    ),
    "gaussian_wasserstein_bound": Row(
        (2.0, 1.0, 10, 3.0), "Upper bound",
        (bad(2.0, 1.0, 10, 3.0, loss_lipschitz=0.0, say="loss_lipschitz"),
         bad(2.0, 1.0, 10, 3.0, loss_lipschitz=1.0, independent=False, say="independent")),
        {"loss_lipschitz": 1.0}, closed=True,
    ),
    "gaussian_dependency_bracket": Row(
        (0.5,), "upper one", (bad(1.0, say="(-1, 1)"),)
    ),
    "gibbs_bound": Row(
        (0.5, 4.0, 10), "Upper bound",
        (bad(0.0, 4.0, 10, say="sub_gaussian"), bad(0.5, -1.0, 10, say="inverse_temperature"),
         bad(0.5, 4.0, 10, contraction=1.5, say="contraction"),
         bad(0.5, 4.0, 10, label_share=-0.5, say="label_share")),
        {"contraction": 0.5, "label_share": 0.1}, closed=True,
    ),
    "gibbs_generalization": Row(
        (0.5, 4.0), "Exact", (bad(-0.5, 4.0, say="symmetrised_information"),), closed=True
    ),
    "info_nce": Row((X[:2],), "lower", (bad(X, say="[B, B]"),), closed=True),
    "kantorovich_value": Row(
        ([1.0, 2.0], [0.0]), "lower value", (bad([1.0], [0.0], lipschitz=0.0, say="lipschitz"),),
        closed=True,
    ),
    "kl_bound": Row(
        ([0.1, 0.2],), "Upper bound",
        (bad([-0.1], sub_gaussian=0.5, say="got -0.1"), bad([NAN], sub_gaussian=0.5, say="nan"),
         bad([0.1], sub_gaussian=0.0, say="sub_gaussian"),
         bad([], sub_gaussian=0.5, say="no sample")),
        {"sub_gaussian": 0.5}, closed=True,
    ),
    "kl_bound_proxy": Row(
        (X, Y), "Proxy", (bad(X, Y, k=1, sub_gaussian=0.0, say="sub_gaussian"),),
        {"k": 1, "sub_gaussian": 0.5},
    ),
    "knn_kl": Row(
        (X, Y), "an estimate",
        (bad(X, Y, k=8, say="k: must lie in [1, 7]"), bad(X, Y, k=0, say="k: "),
         bad(X, Y[:, :1], k=1, say="widths 2 and 1"),
         bad(X, np.full((8, 2), NAN), k=1, say="row 0"),
         bad(np.zeros((4, 1)), np.ones((4, 1)), k=1, say="coincide"),
         bad(X, np.zeros((0, 2)), k=1, say="not empty")),
        {"k": 2},
    ),
    "knn_kl_by_class": Row(
        (X, Y, np.arange(8) % 2, np.arange(8) % 2), "an estimate",
        (bad(X, Y, np.arange(8) % 2, np.zeros(8, int), k=1, say="class 1 is empty"),
         bad(X, Y, np.arange(8) % 2, np.arange(8) % 2, k=4, say="class 0: k: must lie in [1, 3]"),
         bad(X, Y, np.arange(7), np.arange(8), k=1, say="x_classes: shape (7,) must be (8,)")),
        {"k": 2},
    ),
    "ksg_mutual_information": Row(
        (X, Y), "an estimate",
        (bad(X, Y, k=8, say="k: "), bad(X, Y[:5], k=1, say="8 and 5 samples"),
         bad(np.zeros(5), np.zeros(5), k=1, say="coincide")),
        {"k": 2},
    ),
    "label_aware_bound": Row(
        ([0.1, 0.2], [0.3, 0.4], [0.5, 0.5]), "Upper bound",
        (bad([0.1], [0.3, 0.4], [0.5], sub_gaussian=0.5, say="shape"),
         bad([0.1], [-0.3], [0.5], sub_gaussian=0.5, say="input_information"),
         bad([0.1], [0.3], [-0.5], sub_gaussian=0.5, say="coefficients"),
         bad([0.1], [0.3], [0.5], sub_gaussian=0.5, noise_at_test=False, say="noise_at_test")),
        {"sub_gaussian": 0.5}, closed=True,
    ),
    "labelled_cost": Row(
        (X, Y, np.arange(8), np.arange(8)), "Costs",
        (bad(X, Y, np.arange(8), np.eye(8), say="one width"),
         bad(X, Y, np.arange(7), np.arange(8), say="7 and 8")),
    ),
    "lipschitz_tails": Row(
        ([2.0, 3.0],), "upper value",
        (bad([-1.0], say="constants"), bad([[1.0]], say="[layers]")),
        closed=True,
    ),
    "log_parameter_count": Row(
        ([2, 2, 1], 2), "nats", (bad([2], 2, say="widths"), bad([2, 1], 0, say="levels")),
        closed=True,
    ),
    "nguyen_wainwright_jordan": Row(
        ([1.0, 2.0], [0.0, 1.0]), "lower value", (bad([1.0], [[0.0]], say="product_scores"),),
        closed=True,
    ),
    "operator_norm": Row(
        (jnp.tanh, jnp.zeros(2)), "with the stated probability|failure",
        (bad(jnp.tanh, jnp.zeros(2), key=jax.random.key(0), num_iterations=0, say="num_iterations"),
         bad(jnp.tanh, jnp.zeros(2), key=jax.random.key(0), failure=1.0, say="failure")),
        {"key": jax.random.key(0), "num_iterations": 2},
    ),
    "operator_norm_exact": Row(
        (jnp.tanh, jnp.zeros(2)), "exact",
        (bad(jnp.tanh, jnp.zeros(3000), say="3000 x 3000"),),
    ),
    "product_bound": Row(([2.0, 3.0],), "Upper bound", (bad([INF], say="finite"),), closed=True),
    "residual_bound": Row(
        (1.0, 2.0), "Upper bound", (bad(1.0, -2.0, say="branch"),), closed=True
    ),
    "sign_network": Row(
        ([2, 1],), "experiment",
        (bad([2, 2], size=1, inverse_temperature=1.0, say="widths"),
         bad([2, 1], size=1, inverse_temperature=1.0, drop=2.0, say="drop")),
        {"size": 1, "inverse_temperature": 1.0},
    ),
    "sliced_wasserstein": Row(
        (X, Y, np.eye(2)), "lower value",
        (bad(X, Y, 2 * np.eye(2), say="length 1"), bad(X, Y, np.eye(3), say="[d, count]")),
        closed=True,
    ),
    "transport_entropic": Row(
        (np.ones((2, 3, 4)),), "Upper value",
        (bad([[1.0]], epsilon=[-1.0], say="epsilon"), bad([1.0], epsilon=1.0, say="[tables, n, m]"),
         bad([[-1.0]], epsilon=1.0, say=">= 0"), bad([[NAN]], epsilon=1.0, say="finite"),
         bad([[1.0]], [0.5], epsilon=1.0, say="a: weights must be"),
         bad([[1.0]], epsilon=1.0, max_iterations=0, say="max_iterations")),
        {"epsilon": 1.0},
    ),
    "transport_exact": Row(
        ([[0.0, 1.0]],), "Exact",
        (bad([[NAN]], say="finite"), bad([[-1.0]], say=">= 0"), bad([1.0], say="[n, m]"),
         bad([[0.0, 1.0]], None, [0.5, 0.6], say="sum 1.1"),
         bad([[0.0, 1.0]], None, [1.5, -0.5], say="least -0.5"),
         bad(np.zeros((1100, 1001)), say="too large")),
    ),
    "wasserstein_1d": Row(
        (X[:, 0], Y[:, 0]), "exact",
        (bad([0.0], [NAN], say="finite"), bad([], [0.0], say="x: "),
         bad([0.0, 1.0], [0.0], [0.5, 0.6], say="a: "), bad([0.0], [0.0], [0.5, 0.5], say="(1,)")),
        closed=True,
    ),
    "wasserstein_bound": Row(
        ([0.5, 0.2], [2.0, 1.0]), "Upper bound",
        (bad([0.5], [1.0, 1.0], loss_lipschitz=1.0, say="shape"),
         bad([-0.5], [1.0], loss_lipschitz=1.0, say="distances"),
         bad([0.5], [INF], loss_lipschitz=1.0, say="lipschitz_tails"),
         bad([0.5], [1.0], loss_lipschitz=-1.0, say="loss_lipschitz")),
        {"loss_lipschitz": 1.0}, closed=True,
    ),
    "wasserstein_entropic": Row(
        (X, Y), "Upper value",
        (bad(X, Y, epsilon=0.0, say="epsilon"), bad(X, Y, epsilon=1.0, metric="l3", say="metric"),
         bad(X, Y, epsilon=1.0, max_iterations=0, say="max_iterations")),
        {"epsilon": 0.5},
    ),
    "wasserstein_exact": Row(
        (X, Y), "Exact|exact",
        (bad(X, Y, metric="l3", say="euclidean, sqeuclidean, cityblock"),
         bad(X, Y[:, :1], say="widths 2 and 1"), bad(X, [[INF, 0.0]], say="row 0")),
    ),
}  # fmt: skip
RECORDS = {
    "DependencyBracket",
    "EntropicCost",
    "Experiment",
    "Findings",
    "Inequality",
    "OperatorNorm",
    "Risks",
}
