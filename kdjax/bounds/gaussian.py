"""Closed forms for Gaussians, and the Gaussian example in which every bound has a closed form.

The example: X | Y ~ N(Y mu, s^2 I_d) with Y = +-1, the mean estimator V = (1/n) sum_i Y_i X_i, and
linear layers A_l = W_l ... W_1 that are drawn independently of the data. numpy in, float64 out; a
JAX array in, JAX out.
"""

from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer

from kdjax.bounds._backend import (
    Numbers,
    Result,
    arrays,
    backend,
    check_integer,
    check_not_negative,
    check_positive,
    check_true,
    floats,
)
from kdjax.bounds.hierarchical import kl_bound, wasserstein_bound
from kdjax.errors import UserError

_INDEPENDENCE = "a projection fitted to the data keeps more information than its rank tells"


class Risks(NamedTuple):
    """Expected 0-1 losses of a classifier sign(V.x) on test and on training points."""

    population: Result
    training: Result


def _checked_gaussian(
    xp: Any, mean: Any, covariance: Any, name: str, *, definite: bool
) -> tuple[Any, Any]:
    mean, matrix = floats(xp, mean), floats(xp, covariance)
    if mean.ndim < 1 or matrix.shape[-2:] != (mean.shape[-1],) * 2:
        raise UserError(
            f"{name}: mean {mean.shape} and covariance {matrix.shape} must be [d] and [d, d]"
        )
    if isinstance(mean, Tracer) or isinstance(matrix, Tracer):
        return mean, matrix
    host = np.asarray(matrix, np.float64)
    if not (np.isfinite(host).all() and np.isfinite(np.asarray(mean)).all()):
        raise UserError(f"{name}: mean and covariance must be finite")
    scale = np.abs(host).max(initial=0.0)
    if not np.allclose(host, np.swapaxes(host, -1, -2), atol=1e-5 * scale):
        raise UserError(f"{name}: the covariance must be symmetric")
    least = np.linalg.eigvalsh(host).min(initial=np.inf)
    if (least <= 0) if definite else (least < -1e-5 * scale):
        kind = "positive definite" if definite else "positive semidefinite"
        raise UserError(f"{name}: the covariance must be {kind}, its least eigenvalue is {least:g}")
    return mean, matrix


def _checked_pair(
    xp: Any, first: tuple[Numbers, Numbers], second: tuple[Numbers, Numbers], *, definite: bool
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    pair = (
        _checked_gaussian(xp, *first, "first Gaussian", definite=definite),
        _checked_gaussian(xp, *second, "second Gaussian", definite=definite),
    )
    widths = [mean.shape[-1] for mean, _ in pair]
    if widths[0] != widths[1]:
        raise UserError(f"means: widths {widths[0]} and {widths[1]} must be equal")
    return pair


def gaussian_kl(m0: Numbers, S0: Numbers, m1: Numbers, S1: Numbers) -> Result:
    """KL(N(m0, S0) || N(m1, S1)), exact, in nats.

    1/2 [tr(S1^-1 S0) + (m1 - m0)' S1^-1 (m1 - m0) - d + ln det S1 - ln det S0].

    Args:
        m0: [*batch, d]; as m1.
        S0: [*batch, d, d], positive definite; as S1.
        m1: mean of the second Gaussian.
        S1: covariance of the second Gaussian.

    Returns:
        [*batch].

    Raises:
        UserError: shapes that disagree, a covariance that is not symmetric positive definite.

    >>> print(float(gaussian_kl([0.0], [[1.0]], [1.0], [[1.0]])))
    0.5
    """
    xp, _ = backend(m0, S0, m1, S1)
    (mean0, cov0), (mean1, cov1) = _checked_pair(xp, (m0, S0), (m1, S1), definite=True)
    shift = (mean1 - mean0)[..., None]
    trace = xp.trace(xp.linalg.solve(cov1, cov0), axis1=-2, axis2=-1)
    distance = xp.sum(shift * xp.linalg.solve(cov1, shift), axis=(-2, -1))
    volume = xp.linalg.slogdet(cov1)[1] - xp.linalg.slogdet(cov0)[1]
    return (trace + distance - mean0.shape[-1] + volume) / 2


def gaussian_w2_squared(m0: Numbers, S0: Numbers, m1: Numbers, S1: Numbers) -> Result:
    """Squared 2-Wasserstein distance of two Gaussians, exact.

    |m0 - m1|^2 + tr S0 + tr S1 - 2 tr (S1^1/2 S0 S1^1/2)^1/2; the last trace is the sum of the
    singular values of F0' F1 for any factors S = F F'. Its root bounds their W1 from above.

    Arguments and errors as in `gaussian_kl`; a covariance may be semidefinite on the host.

    Returns:
        [*batch], squared unit of the points.

    Source: Dowson and Landau 1982.

    >>> print(float(gaussian_w2_squared([0.0], [[4.0]], [1.0], [[1.0]])))
    2.0
    """
    xp, _ = backend(m0, S0, m1, S1)
    (mean0, cov0), (mean1, cov1) = _checked_pair(xp, (m0, S0), (m1, S1), definite=xp is not np)
    cross = xp.swapaxes(_factor(xp, cov0), -1, -2) @ _factor(xp, cov1)
    overlap = xp.sum(xp.linalg.svd(cross, compute_uv=False), axis=-1)
    traces = xp.trace(cov0, axis1=-2, axis2=-1) + xp.trace(cov1, axis1=-2, axis2=-1)
    return xp.maximum(xp.sum((mean0 - mean1) ** 2, axis=-1) + traces - 2 * overlap, 0.0)


def _factor(xp: Any, matrix: Any) -> Any:
    """Return F with F F' = matrix: Cholesky's in JAX, as eigh has no gradient at equal values."""
    if xp is not np:
        return xp.linalg.cholesky(matrix)
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def gaussian_layer_kl(rank: Numbers, n: Numbers, *, independent: bool = True) -> Result:
    """D_l of the Gaussian example, exact: (r_l / 2) ln(n / (n - 1)), in nats.

    Args:
        rank: r_l, the rank of A_l.
        n: samples.
        independent: A_l was drawn independently of the data. If not (say, its last factor is V),
            the true divergence is larger, and the call is refused.

    Returns:
        Broadcast over the arguments.

    Raises:
        UserError: n < 2 (infinite), rank < 0, a projection that depends on the data.

    Source: reconstruction.

    >>> print(round(float(gaussian_layer_kl(5, 10)), 6))
    0.263401
    """
    check_true("independent", independent, _INDEPENDENCE)
    check_integer("rank", rank, 0)
    check_integer("n", n, 2)
    xp, directions, size = arrays(rank, n)
    return -directions / 2 * xp.log1p(-1 / size)


def gaussian_layer_w2_squared(
    frobenius: Numbers, sigma: Numbers, n: Numbers, *, independent: bool = True
) -> Result:
    """E W2^2 between training and test law at layer l: 2 s^2 ||A_l||_F^2 (1 - sqrt(1 - 1/n)).

    Exact, for the Gaussian example; the root of it bounds the mean W1 from above.

    Args:
        frobenius: ||A_l||_F.
        sigma: s, standard deviation of an input coordinate given the label.
        n: samples.
        independent: A_l was drawn independently of the data; False is refused.

    Returns:
        Squared unit of the layer, broadcast over the arguments.

    Raises:
        UserError: sigma <= 0, a negative norm, n < 1, a projection that depends on the data.

    Source: reconstruction.

    >>> print(round(float(gaussian_layer_w2_squared(1.0, 1.0, 2)), 6))
    0.585786
    """
    check_true("independent", independent, _INDEPENDENCE)
    check_not_negative("frobenius", frobenius)
    check_positive("sigma", sigma)
    check_integer("n", n, 1)
    xp, norm, deviation, size = arrays(frobenius, sigma, n)
    inverse = 1 / size
    # 1 - sqrt(1 - u) = u / (1 + sqrt(1 - u)) has no cancellation for large n.
    shrinkage = inverse / (1 + xp.sqrt(1 - inverse))
    return 2 * (deviation * norm) ** 2 * shrinkage


def gaussian_kl_bound(
    rank: Numbers, n: Numbers, *, sub_gaussian: Numbers, independent: bool = True
) -> Result:
    """Upper bound of |gen| in the Gaussian example: sigma sqrt(r_l ln(n / (n - 1))).

    Arguments, source and errors as in `gaussian_layer_kl`; `sub_gaussian` in the unit of the
    loss (1/2 for the 0-1 loss).

    >>> print(round(float(gaussian_kl_bound(1, 10, sub_gaussian=0.5)), 6))
    0.162296
    """
    divergence = gaussian_layer_kl(rank, n, independent=independent)
    xp, _ = backend(divergence)
    return kl_bound(xp.expand_dims(divergence, -1), sub_gaussian=sub_gaussian)


def gaussian_wasserstein_bound(
    frobenius: Numbers,
    sigma: Numbers,
    n: Numbers,
    lipschitz_tail: Numbers,
    *,
    loss_lipschitz: Numbers,
    independent: bool = True,
) -> Result:
    """Upper bound of |gen|: rho_0 max(1, tail_l) s ||A_l||_F sqrt(2 (1 - sqrt(1 - 1/n))).

    Arguments, source and errors as in `gaussian_layer_w2_squared`; the shape of
    `lipschitz_tail` (the product of ||W_j||_op over j > l) is that of the result.

    >>> print(round(float(gaussian_wasserstein_bound(1.0, 1.0, 2, 3.0, loss_lipschitz=1.0)), 6))
    2.296101
    """
    squared = gaussian_layer_w2_squared(frobenius, sigma, n, independent=independent)
    xp, _ = backend(squared)
    return wasserstein_bound(xp.sqrt(squared), lipschitz_tail, loss_lipschitz=loss_lipschitz)


def gaussian_risks(estimate: Numbers, mean: Numbers, sigma: Numbers, n: Numbers) -> Risks:
    """0-1 losses given the mean estimator V, exact: Phi(-V.mu / s|V|), Phi(-|V| / s sqrt(1 - 1/n)).

    The second is the expectation of the training loss given V. The mean of the difference over
    V ~ N(mu, s^2 I / n) is gen of the classifier sign(V.x).

    Args:
        estimate: V, [*batch, d].
        mean: mu, [d].
        sigma: s.
        n: samples that V averages.

    Returns:
        Risks of two arrays [*batch], in [0, 1].

    Raises:
        UserError: sigma <= 0, n < 2, widths that disagree.

    Source: reconstruction.

    >>> risks = gaussian_risks([1.0, 0.0], [1.0, 0.0], 1.0, 2)
    >>> print(round(float(risks.population), 4), round(float(risks.training), 4))
    0.1587 0.0786
    """
    check_positive("sigma", sigma)
    check_integer("n", n, 2)
    xp, special = backend(estimate, mean, sigma, n)
    v, mu = floats(xp, estimate), floats(xp, mean)
    if v.ndim < 1 or mu.shape != v.shape[-1:]:
        raise UserError(f"estimate {v.shape} and mean {mu.shape}: must be [*batch, d] and [d]")
    s, length = floats(xp, sigma), xp.linalg.norm(v, axis=-1)
    return Risks(
        special.ndtr(-(v @ mu) / (s * length)),
        special.ndtr(-length / (s * xp.sqrt(1 - 1 / floats(xp, n)))),
    )
