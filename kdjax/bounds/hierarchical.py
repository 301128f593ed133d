"""Hierarchical bounds of the generalization error by divergences at each layer of a network.

W = (W_1..W_L) are the weights, T_l the representation of a fresh test point at layer l, T_{l,i}
that of training point i, gen = E[population loss - empirical loss]. Layer 0 is the input.

Source: He, Yu and Goldfeld 2024 (arXiv 2404.03176) for the idea; the constants are a
reconstruction, checked by exact enumeration (`bounds.chain`). numpy in, float64 out; a JAX array
in, JAX out.
"""

from kdjax.bounds._backend import (
    Numbers,
    Result,
    arrays,
    check_not_negative,
    check_positive,
    root,
)
from kdjax.errors import UserError


def kl_bound(divergences: Numbers, *, sub_gaussian: Numbers) -> Result:
    """Upper bound of |gen|: sqrt(2) sigma / n sum_i sqrt(D_{l,i}).

    D_{l,i} = KL(P_{T_{l,i},Y_i|W} || P_{T_l,Y|W} | P_W), in nats, over the randomness of training.
    Assumes iid samples and a loss that is sigma-sub-Gaussian under the test law given w: one in
    [a, b] has sigma = (b - a) / 2. The bound never increases with l.

    Args:
        divergences: [*layers, samples], or one number that all samples share. An estimate below 0
            is refused: the caller decides to clip it. Estimates give a proxy, not a bound.
        sub_gaussian: sigma, in the unit of the loss.

    Returns:
        [*layers], in the unit of the loss; infinite where a divergence is.

    Raises:
        UserError: a negative or NaN divergence, no samples, sigma that is not positive.

    Source: hierarchical KL bound of arXiv 2404.03176; constants reconstructed.

    >>> print(round(float(kl_bound([0.02, 0.02], sub_gaussian=0.5)), 6))
    0.1
    """
    check_not_negative("divergences", divergences, infinite=True)
    check_positive("sub_gaussian", sub_gaussian)
    xp, values, sigma = arrays(divergences, sub_gaussian)
    if values.size == 0:
        raise UserError(f"divergences: shape {values.shape} holds no sample")
    roots = root(xp, values)  # D = 0 at a layer without information about the data
    mean = xp.mean(roots, axis=-1) if values.ndim else roots
    return 2.0**0.5 * sigma * mean


def wasserstein_bound(
    distances: Numbers, lipschitz_tails: Numbers, *, loss_lipschitz: Numbers
) -> Result:
    """Upper bound of |gen| at each layer: rho_0 / n sum_i max(1, tail_l) W1_{l,i}.

    W1_{l,i} is the 1-Wasserstein distance of P_{T_{l,i},Y_i|W} and P_{T_l,Y|W} under the cost
    ||t - t'|| + |y - y'|; tail_l the Lipschitz constant of the layers after l
    (`lipschitz_tails`). Assumes a loss that is rho_0-Lipschitz in (prediction, label) for that
    cost. For fixed weights and finite samples it bounds |mean test loss - mean training loss|,
    deterministically, if `distances` are exact. The best bound is the minimum over layers.

    Args:
        distances: [*layers, *samples]: the mean is over the axes that the tails lack. For random
            weights pass both per draw, and average the result over draws.
        lipschitz_tails: [*layers]; the function takes the maximum with 1.
        loss_lipschitz: rho_0.

    Returns:
        [*layers], in the unit of the loss. A bound only if the distances and the tails are exact
        or upper values.

    Raises:
        UserError: shapes that disagree, negative or non-finite numbers, rho_0 not positive.

    Source: hierarchical Wasserstein bound of arXiv 2404.03176; constants reconstructed.

    >>> print(wasserstein_bound([0.5, 0.2, 0.25], [4.0, 2.0, 1.0], loss_lipschitz=1.0))
    [2.   0.4  0.25]
    """
    check_not_negative("distances", distances)
    check_not_negative("lipschitz_tails", lipschitz_tails)
    check_positive("loss_lipschitz", loss_lipschitz)
    xp, distance, tail, constant = arrays(distances, lipschitz_tails, loss_lipschitz)
    if distance.size == 0 or distance.shape[: tail.ndim] != tail.shape:
        raise UserError(
            f"distances: shape {distance.shape} must begin with that of lipschitz_tails "
            f"{tail.shape} and hold at least one number"
        )
    mean = xp.mean(distance, axis=tuple(range(tail.ndim, distance.ndim)))
    return constant * xp.maximum(tail, 1.0) * mean


def funnel_layer(values: Numbers) -> Result:
    """Index of the layer whose bound is smallest: argmin over the last axis, the first on a tie.

    Args:
        values: [*batch, layers] bounds; index 0 is the input if the first value is its bound.

    Returns:
        [*batch], whole numbers.

    Raises:
        UserError: no layer, or a NaN or negative bound.

    Source: funnel layer of arXiv 2404.03176.

    >>> print(funnel_layer([2.0, 0.4, 0.25, 0.3]))
    2
    """
    check_not_negative("values", values, infinite=True)
    xp, array = arrays(values)
    if array.ndim < 1 or array.shape[-1] == 0:
        raise UserError(f"values: shape {array.shape} must be [*batch, layers] with a layer")
    return xp.argmin(array, axis=-1)
