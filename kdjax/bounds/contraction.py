"""Contraction: noise in the network loses information about the data, and so tightens bounds.

The coefficient eta of a channel is the largest ratio of a divergence after it to that before it.
Noise counts only if it acts at test time too. Information in nats. numpy in, float64 out; a JAX
array in, JAX out.

Source: strong data-processing inequalities as used in arXiv 2404.03176; constants reconstructed.
"""

from kdjax.bounds._backend import (
    Numbers,
    Result,
    arrays,
    backend,
    check_integer,
    check_not_negative,
    check_positive,
    check_true,
    check_unit_interval,
    floats,
    root,
)
from kdjax.errors import UserError

_AT_TEST = "a network without noise at test time contracts nothing"


def _survival(q: Numbers, count: Numbers) -> Result:
    """Return 1 - q^count, accurate also where q^count is near 1; 1 at q = 0."""
    xp, probability, exponent = arrays(q, count)
    # log 0 would make the gradient NaN even in the branch that is not taken.
    base = xp.where(probability > 0, probability, 0.5)
    return xp.where(probability > 0, 0.0 - xp.expm1(exponent * xp.log(base)), 1.0)[()]


def dropout_contraction(q: Numbers, width: Numbers) -> Result:
    """Coefficient of dropout on a vector, attained: eta = 1 - q^width.

    Args:
        q: probability that a unit is dropped, independently of the others.
        width: units of the vector.

    Returns:
        In [0, 1], broadcast over the arguments.

    Raises:
        UserError: q outside [0, 1], width not a whole number >= 1.

    Source: reconstruction (erasure channel: all units are dropped with probability q^width).

    >>> print(float(dropout_contraction(0.5, 2)))
    0.75
    """
    check_unit_interval("q", q)
    check_integer("width", width, 1)
    return _survival(q, width)


def dropconnect_contraction(q: Numbers, d_out: Numbers, d_in: Numbers) -> Result:
    """Coefficient of DropConnect on a d_out x d_in matrix, attained: 1 - q^(d_out d_in).

    Returns:
        In [0, 1], broadcast over the arguments.

    Raises:
        UserError: q outside [0, 1], a dimension that is not a whole number >= 1.

    Source: reconstruction (erasure channel, as `dropout_contraction`).

    >>> print(float(dropconnect_contraction(0.5, 1, 2)))
    0.75
    """
    check_unit_interval("q", q)
    check_integer("d_out", d_out, 1)
    check_integer("d_in", d_in, 1)
    _, probability, rows, columns = arrays(q, d_out, d_in)
    return _survival(probability, rows * columns)


def activation_diameter(amplitude: Numbers, width: Numbers) -> Result:
    """Diameter of the outputs of `width` units with values in [-a, a]: 2 a sqrt(width).

    Returns:
        Unit of the activation, broadcast over the arguments.

    Raises:
        UserError: an unbounded activation (a infinite: ReLU), a width that is not >= 1.

    >>> print(float(activation_diameter(1.0, 4)))  # tanh
    4.0
    """
    check_positive("amplitude (of a bounded activation: tanh 1, ReLU has none)", amplitude)
    check_integer("width", width, 1)
    xp, largest, units = arrays(amplitude, width)
    return 2 * largest * xp.sqrt(units)


def gaussian_noise_contraction(diameter: Numbers, sigma: Numbers) -> Result:
    """Upper bound of the coefficient of added Gaussian noise on bounded signals.

    eta <= min{1 - 2 Q(D / 2s), 1 - exp(-D^2 / (4 s^2))}: the largest total variation between two
    outputs (Dobrushin), and one minus their least squared Bhattacharyya coefficient.

    Args:
        diameter: D, of the set of signals (`activation_diameter`).
        sigma: s, standard deviation of the noise of each coordinate.

    Returns:
        In [0, 1], broadcast over the arguments.

    Raises:
        UserError: an unbounded signal (its coefficient is 1: nothing contracts), sigma <= 0.

    Source: Polyanskiy and Wu 2017 (arXiv 1508.06025) for the two forms; figures reconstructed.

    >>> print(round(float(gaussian_noise_contraction(1.0, 1.0)), 6))
    0.221199
    """
    check_not_negative("diameter (unbounded signals have coefficient 1)", diameter)
    check_positive("sigma", sigma)
    xp, special = backend(diameter, sigma)
    ratio = floats(xp, diameter) / floats(xp, sigma)
    total_variation = special.erf(ratio / 8**0.5)
    return xp.minimum(total_variation, -xp.expm1(-(ratio**2) / 4))


def contraction_product(coefficients: Numbers) -> Result:
    """Coefficient of a composition of layers, an upper value: prod_l eta_l over the last axis.

    Returns:
        [*batch], in [0, 1].

    Raises:
        UserError: a coefficient outside [0, 1].

    >>> print(float(contraction_product([0.5, 0.5])))
    0.25
    """
    check_unit_interval("coefficients", coefficients)
    xp, values = arrays(coefficients)
    return xp.prod(values, axis=-1)


def label_aware_bound(
    label_information: Numbers,
    input_information: Numbers,
    coefficients: Numbers,
    *,
    sub_gaussian: Numbers,
    noise_at_test: bool = True,
) -> Result:
    """Upper bound of |gen|: sqrt(2) s / n sum_i sqrt(I(Y_i;W) + prod eta_l I(X_i;W|Y_i)).

    The label reaches the loss without noise, so only the information of the input beyond it
    contracts. Assumes iid samples, an s-sub-Gaussian loss, and noise in training and at test time.

    Args:
        label_information: I(Y_i; W), [samples], nats.
        input_information: I(X_i; W | Y_i), [samples], nats.
        coefficients: eta_l, [layers].
        sub_gaussian: s, in the unit of the loss.
        noise_at_test: the test pass is noisy too; False is refused.

    Returns:
        [], in the unit of the loss.

    Raises:
        UserError: coefficients outside [0, 1], negative information, shapes that disagree, no
            noise at test time.

    Source: reconstruction.

    >>> print(float(label_aware_bound([0.0], [0.16], [0.5], sub_gaussian=0.5)).__round__(6))
    0.2
    """
    check_true("noise_at_test", noise_at_test, _AT_TEST)
    check_not_negative("label_information", label_information)
    check_not_negative("input_information", input_information)
    check_positive("sub_gaussian", sub_gaussian)
    values = (label_information, input_information, coefficients, sub_gaussian)
    xp, label, rest, etas, s = arrays(*values)
    if label.shape != rest.shape or label.size == 0:
        raise UserError(
            f"label_information: shape {label.shape} must be that of input_information "
            f"{rest.shape}, with at least one sample"
        )
    information = label + contraction_product(etas) * rest
    return 2**0.5 * s * xp.mean(root(xp, information))


def log_parameter_count(widths: Numbers, levels: Numbers) -> Result:
    """ln|W| of a dense network whose weights take `levels` values: sum_l d_l d_(l-1) ln K.

    Args:
        widths: d_0 (input) to d_L (output).
        levels: K, values that one weight takes.

    Returns:
        [], nats.

    Raises:
        UserError: fewer than two widths, widths or levels that are not whole numbers >= 1.

    >>> print(round(float(log_parameter_count([2, 2, 1], 2)), 6))  # 6 ln 2
    4.158883
    """
    check_integer("widths", widths, 1)
    check_integer("levels", levels, 1)
    xp, d, count = arrays(widths, levels)
    if d.ndim != 1 or d.size < 2:
        raise UserError(f"widths: shape {d.shape} must be [layers + 1], with input and output")
    return xp.sum(d[1:] * d[:-1]) * xp.log(count)


def finite_parameter_bound(
    label_information: Numbers,
    log_count: Numbers,
    coefficients: Numbers,
    *,
    sub_gaussian: Numbers,
    noise_at_test: bool = True,
) -> Result:
    """Upper bound of |gen|: s sqrt(2/n [sum_i I(Y_i;W) + prod eta_l ln|W|]).

    At an equal number of weights it is smaller for deeper and narrower networks. Assumptions as in
    `label_aware_bound`, and weights from a finite set.

    Args:
        label_information: I(Y_i; W), [samples], nats; its length is n.
        log_count: ln|W|, nats (`log_parameter_count`).
        coefficients: eta_l, [layers].
        sub_gaussian: s, in the unit of the loss.
        noise_at_test: the test pass is noisy too; False is refused.

    Returns:
        [], in the unit of the loss.

    Raises:
        UserError: coefficients outside [0, 1], negative information, no sample, no noise at test
            time.

    Source: reconstruction.

    >>> print(float(finite_parameter_bound([0, 0], 0.5, [0.5], sub_gaussian=1.0)))
    0.5
    """
    check_true("noise_at_test", noise_at_test, _AT_TEST)
    check_not_negative("label_information", label_information)
    check_not_negative("log_count", log_count)
    check_positive("sub_gaussian", sub_gaussian)
    values = (label_information, log_count, coefficients, sub_gaussian)
    xp, label, log_size, etas, s = arrays(*values)
    if label.ndim != 1 or label.size == 0:
        raise UserError(f"label_information: shape {label.shape} must be [samples], not empty")
    total = xp.sum(label) + contraction_product(etas) * log_size
    return s * xp.sqrt(2 / label.size * total)
