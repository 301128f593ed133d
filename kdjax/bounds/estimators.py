"""Estimates of divergence and information from samples, and values of critics; all in nats.

Neighbour estimators run on the host in numpy float64 and are *estimates*: neither upper nor lower
values. Critics' values lie below the truth in expectation if the scores come from samples that the
critic was not trained on; they are JAX for JAX scores.
"""

from typing import Any

import numpy as np
from scipy.spatial import KDTree
from scipy.special import digamma

from kdjax.bounds._backend import Numbers, Result, backend, floats
from kdjax.bounds._samples import check_neighbours, point_pair, points
from kdjax.bounds.hierarchical import kl_bound
from kdjax.errors import UserError


def knn_kl(x: Numbers, y: Numbers, *, k: int) -> float:
    """k-nearest-neighbour estimate of KL(P_x || P_y): d/n sum ln(nu_k / rho_k) + ln(m / (n - 1)).

    rho_k is the distance of x_i to its k-th neighbour among the other x, nu_k to that among y. May
    be negative. Assumes densities: repeated points make it infinite and are refused.

    Args:
        x: [n, d] or [n].
        y: [m, d] or [m].
        k: neighbours; more is smoother and more biased.

    Returns:
        Nats, an estimate.

    Raises:
        UserError: k outside [1, min(n - 1, m)], repeated points, bad points.

    Source: Wang, Kulkarni and Verdu 2009, equation 5.

    >>> print(round(knn_kl([0.0, 1.0, 2.0], [0.5, 1.5, 3.5], k=1), 4))
    -0.2877
    """
    first, second = point_pair(x, y)
    (n, width), m = first.shape, len(second)
    check_neighbours(k, min(n - 1, m), f"{n} and {m} samples")
    rho = _radius(first, first, k + 1)  # the nearest row is the point itself
    nu = _radius(second, first, k)
    if min(rho.min(), nu.min()) <= 0:
        raise UserError(
            f"x, y: {k} or more points coincide with another, so there is no density; raise k or "
            "add noise"
        )
    return float(width * np.mean(np.log(nu / rho)) + np.log(m / (n - 1)))


def knn_kl_by_class(
    x: Numbers, y: Numbers, x_classes: Numbers, y_classes: Numbers, *, k: int
) -> float:
    """Neighbour estimate of KL of (representation, class): KL of the classes, and of T in each.

    sum_c p_c [ln(p_c / q_c) + knn_kl(x | c, y | c)], p and q the shares of the classes. A class
    appended as a column of numbers would have no density.

    Args:
        x: [n, d] or [n].
        y: [m, d] or [m].
        x_classes: whole numbers [n].
        y_classes: [m].
        k: neighbours, in every class.

    Returns:
        Nats, an estimate.

    Raises:
        UserError: a class of x that y lacks (the divergence is then infinite), a class with too few
            samples for k neighbours, and as `knn_kl`.

    Source: chain rule of relative entropy, with `knn_kl`.

    >>> x, y = [0.0, 1.0, 2.0, 5.0, 6.0], [0.5, 1.5, 3.5, 5.5]
    >>> print(round(knn_kl_by_class(x, y, [0, 0, 0, 1, 1], [0, 0, 0, 1], k=1), 4))
    -0.3958
    """
    first, second = point_pair(x, y)
    sides = ((first, np.asarray(x_classes), "x"), (second, np.asarray(y_classes), "y"))
    for samples, classes, name in sides:
        if classes.shape != (len(samples),):
            raise UserError(
                f"{name}_classes: shape {classes.shape} must be ({len(samples)},), one a sample"
            )
    total = 0.0
    for number in np.unique(sides[0][1]):
        x_class, y_class = (samples[classes == number] for samples, classes, _ in sides)
        if not len(y_class):
            raise UserError(f"y_classes: class {number} is empty, so the divergence is infinite")
        try:
            conditional = knn_kl(x_class, y_class, k=k)
        except UserError as error:
            raise UserError(f"class {number}: {error}") from error
        share = len(x_class) / len(first)
        total += share * (np.log(share * len(second) / len(y_class)) + conditional)
    return float(total)


def kl_bound_proxy(
    x: Numbers,
    y: Numbers,
    x_classes: Numbers | None = None,
    y_classes: Numbers | None = None,
    *,
    k: int,
    sub_gaussian: float,
) -> float:
    """Proxy of the KL bound from one training run: sqrt(2) sigma sqrt(max(KL, 0)).

    KL is `knn_kl(x, y)`, or with classes `knn_kl_by_class`.

    Not a bound. The true one compares the law of a *training* point's representation over many
    trainings with that of a test point; a single run has one sample a point and pools them.

    Args:
        x: [n, d], training representations.
        y: [m, d], test representations.
        x_classes: [n], the classes; both or none.
        y_classes: [m].
        k: neighbours.
        sub_gaussian: sigma, in the unit of the loss.

    Returns:
        Unit of the loss, a proxy.

    Raises:
        UserError: as `knn_kl`, `knn_kl_by_class` and `kl_bound`.

    >>> print(kl_bound_proxy([0.0, 1.0, 2.0], [0.5, 1.5, 3.5], k=1, sub_gaussian=0.5))
    0.0
    """
    if (x_classes is None) != (y_classes is None):
        raise UserError("x_classes, y_classes: give both or none")
    if x_classes is None or y_classes is None:
        divergence = knn_kl(x, y, k=k)
    else:
        divergence = knn_kl_by_class(x, y, x_classes, y_classes, k=k)
    divergence = max(divergence, 0.0)
    return float(kl_bound(divergence, sub_gaussian=sub_gaussian))  # pyright: ignore


def ksg_mutual_information(x: Numbers, y: Numbers, *, k: int) -> float:
    """Neighbour estimate of I(X; Y) (KSG-1): psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>.

    Maximum norm; n_x counts the points closer in x than the k-th joint neighbour. May be slightly
    negative. Assumes densities: repeated points are refused.

    Args:
        x: [n, d] or [n].
        y: [n, e] or [n], the same examples.
        k: neighbours.

    Returns:
        Nats, an estimate.

    Raises:
        UserError: different numbers of samples, k outside [1, n - 1], repeated points.

    Source: Kraskov, Stoegbauer and Grassberger 2004 (arXiv cond-mat/0305641), equation 8.

    >>> print(round(ksg_mutual_information([0.0, 1.0, 3.0, 7.0], [0.0, 1.0, 3.0, 7.0], k=1), 4))
    1.8333
    """
    sides = points("x", x), points("y", y)
    n = len(sides[0])
    if len(sides[1]) != n:
        raise UserError(f"x, y: {n} and {len(sides[1])} samples must be as many")
    check_neighbours(k, n - 1, f"{n} samples")
    joint = np.concatenate(sides, axis=1)
    radius = _radius(joint, joint, k + 1, p=np.inf)
    if radius.min() <= 0:
        raise UserError(f"x, y: {k + 1} or more examples coincide, so there is no density")
    closer = np.nextafter(radius, 0)
    counts = (
        KDTree(side).query_ball_point(side, closer, p=np.inf, return_length=True) for side in sides
    )  # a count includes the point itself: it is n_x + 1
    mean = sum(float(np.mean(digamma(count))) for count in counts)
    return float(digamma(k) + digamma(n) - mean)


def donsker_varadhan(joint_scores: Numbers, product_scores: Numbers) -> Result:
    """Critic's value of KL(P || Q): mean_P f - ln mean_Q exp f; a lower value.

    For P the joint and Q the product of the marginals, KL is the mutual information. The logarithm
    of a sample mean biases the value upwards by about Var(exp f) / 2m.

    Args:
        joint_scores: f on samples of P, [n].
        product_scores: f on samples of Q, [m].

    Returns:
        [], nats.

    Raises:
        UserError: no score, another rank.

    Source: Donsker and Varadhan 1983.

    >>> print(float(donsker_varadhan([1.0, 1.0], [0.0, 0.0])))
    1.0
    """
    xp, special = backend(joint_scores, product_scores)
    joint, product = _scores(xp, joint_scores, product_scores)
    return xp.mean(joint) - special.logsumexp(product) + xp.log(floats(xp, product.size))


def nguyen_wainwright_jordan(joint_scores: Numbers, product_scores: Numbers) -> Result:
    """Critic's value of KL(P || Q): mean_P f - mean_Q exp(f - 1); a lower value, unbiased.

    Never above Donsker-Varadhan's for the same scores; its variance grows like exp of the truth.
    Arguments, result and errors as in `donsker_varadhan`.

    Source: Nguyen, Wainwright and Jordan 2010 (arXiv 0809.0853).

    >>> print(float(nguyen_wainwright_jordan([1.0, 1.0], [1.0, 1.0])))
    0.0
    """
    xp, _ = backend(joint_scores, product_scores)
    joint, product = _scores(xp, joint_scores, product_scores)
    return xp.mean(joint) - xp.mean(xp.exp(product - 1))


def info_nce(scores: Numbers) -> Result:
    """InfoNCE value of I(X; Y): mean_i [f_ii - ln sum_j exp f_ij] + ln B; lower, at most ln B.

    Args:
        scores: f(x_i, y_j), [B, B]; the diagonal holds the true pairs.

    Returns:
        [], nats.

    Raises:
        UserError: scores that are not square.

    Source: van den Oord et al. 2018 (arXiv 1807.03748).

    >>> print(float(info_nce([[0.0, 0.0], [0.0, 0.0]])))
    0.0
    """
    xp, special = backend(scores)
    table = floats(xp, scores)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.size == 0:
        raise UserError(f"scores: shape {table.shape} must be [B, B], a score of every pair")
    log_softmax = xp.diagonal(table) - special.logsumexp(table, axis=1)
    return xp.mean(log_softmax) + xp.log(floats(xp, len(table)))


def _radius(among: np.ndarray, of: np.ndarray, k: int, *, p: float = 2.0) -> np.ndarray:
    """Return the distance of every row of `of` to its k-th nearest row of `among`."""
    return np.reshape(KDTree(among).query(of, k, p=p)[0], (len(of), k))[:, -1]


def _scores(xp: Any, joint: Numbers, product: Numbers) -> tuple[Any, Any]:
    pair = floats(xp, joint), floats(xp, product)
    for name, scores in zip(("joint_scores", "product_scores"), pair, strict=True):
        if scores.ndim != 1 or scores.size == 0:
            raise UserError(f"{name}: shape {scores.shape} must be [samples], not empty")
    return pair
