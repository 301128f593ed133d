"""The Gibbs algorithm: weights drawn from a posterior proportional to exp(-a x empirical loss).

Its generalization error is known exactly, so bounds are tested on it. numpy in, float64 out; a JAX
array in, JAX out.
"""

from kdjax.bounds._backend import (
    Numbers,
    Result,
    arrays,
    check_integer,
    check_not_negative,
    check_positive,
    check_unit_interval,
)


def gibbs_generalization(symmetrised_information: Numbers, inverse_temperature: Numbers) -> Result:
    """Exact gen of the Gibbs algorithm: (I(D;W) + L(D;W)) / a.

    I is the mutual information of data and weights and L the lautum information
    KL(P_D P_W || P_DW), both in nats; a multiplies the *mean* empirical loss.

    Returns:
        In the unit of the loss, broadcast over the arguments.

    Raises:
        UserError: negative information, a that is not positive.

    Source: Aminian et al. 2021 (arXiv 2107.13656), theorem 1.

    >>> print(float(gibbs_generalization(0.5, 10.0)))
    0.05
    """
    check_not_negative("symmetrised_information", symmetrised_information)
    check_positive("inverse_temperature", inverse_temperature)
    _, information, a = arrays(symmetrised_information, inverse_temperature)
    return information / a


def gibbs_bound(
    sub_gaussian: Numbers,
    inverse_temperature: Numbers,
    n: Numbers,
    *,
    contraction: Numbers = 1.0,
    label_share: Numbers = 0.0,
) -> Result:
    """Upper bound of gen of the Gibbs algorithm: (2 s^2 a / n) [eta + (1 - eta) r].

    eta = 1 gives the bound without contraction, 2 s^2 a / n. Assumes iid samples, a loss that is
    s-sub-Gaussian under the test law, a prior that does not depend on the data and, for eta < 1,
    noise in training and at test time.

    Args:
        sub_gaussian: s, in the unit of the loss.
        inverse_temperature: a, the factor of the mean empirical loss.
        n: samples.
        contraction: eta, the product of the layers' coefficients (`contraction_product`).
        label_share: r = sum I(Y_i;W) / sum I(Z_i;W), in [0, 1]; 1 if unknown.

    Returns:
        In the unit of the loss, broadcast over the arguments.

    Raises:
        UserError: sigma or a not positive, n < 1, eta or r outside [0, 1].

    Source: arXiv 2107.13656 for eta = 1; the contracted form is a reconstruction.

    >>> print(float(gibbs_bound(0.5, 4.0, 10)))
    0.2
    >>> print(round(float(gibbs_bound(0.5, 4.0, 10, contraction=0.5, label_share=0.2)), 6))
    0.12
    """
    check_positive("sub_gaussian", sub_gaussian)
    check_positive("inverse_temperature", inverse_temperature)
    check_integer("n", n, 1)
    check_unit_interval("contraction", contraction)
    check_unit_interval("label_share", label_share)
    values = (sub_gaussian, inverse_temperature, n, contraction, label_share)
    _, s, a, size, eta, share = arrays(*values)
    return 2 * s**2 * a / size * (eta + (1 - eta) * share)
