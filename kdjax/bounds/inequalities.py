"""Chain of inequalities between the generalization error of a tiny learner and its bounds."""

import math
from typing import NamedTuple

import numpy as np

from kdjax.bounds.contraction import (
    contraction_product,
    finite_parameter_bound,
    label_aware_bound,
)
from kdjax.bounds.enumeration import Experiment, Findings, enumerate_learner
from kdjax.bounds.gibbs import gibbs_bound, gibbs_generalization
from kdjax.bounds.hierarchical import kl_bound

# Bounds are roots of informations, and it is the information that carries the rounding: squares
# are compared, up to this times the square of the loss's scale.
_ROUNDING = 1e-12


class Inequality(NamedTuple):
    """One row: the quantity `name`, its `value`, and its lower limits.

    `holds`: the value is at least those of the rows named in `at_least`, or, with `equals`, the
    same as theirs.
    """

    name: str
    value: float
    at_least: tuple[str, ...]
    holds: bool
    equals: bool = False


class _Claim(NamedTuple):
    value: float
    at_least: tuple[str, ...] = ()
    equals: bool = False


Claims = dict[str, _Claim]


def chain(experiment: Experiment) -> tuple[Inequality, ...]:
    """Compare every bound of a tiny learner with its true gen, and check their order; exact.

    Rows are gen, the KL bound of layers L to 0, the bound by I(D;W), the contracted and
    finite-space bounds, the decomposition of every layer's divergence, and for a Gibbs learner
    (a finite) the identity and its two bounds. Coefficients are Dobrushin's.

    Args:
        experiment: as `enumerate_learner` takes (`sign_network` makes one).

    Returns:
        Rows in the unit of the loss (decompositions in nats); every row should hold.

    Raises:
        UserError: as `enumerate_learner`.

    Source: arXiv 2404.03176 for the chain, arXiv 2107.13656 for the Gibbs identity; constants
        reconstructed.

    >>> from kdjax.bounds.enumeration import sign_network
    >>> rows = chain(sign_network([2, 2, 1], size=2, inverse_temperature=4.0, drop=0.2))
    >>> for row in rows[:5]:
    ...     print(row.name, round(row.value, 4), row.holds)
    |gen| 0.1972 True
    KL bound 2 0.2536 True
    KL bound 1 0.2714 True
    KL bound 0 0.2878 True
    information bound 0.2952 True
    """
    exact = enumerate_learner(experiment)
    claims = {"|gen|": _Claim(abs(exact.generalization))}
    claims |= _hierarchy(exact, experiment.size)
    claims |= _contracted(exact, experiment.size)
    if not math.isinf(experiment.inverse_temperature):
        claims |= _gibbs(exact, experiment)
    for layer, (divergence, terms) in enumerate(zip(exact.divergences, exact.split, strict=True)):
        name = f"divergence {layer}"
        claims[name] = _Claim(float(divergence))
        claims[f"decomposition {layer}"] = _Claim(float(terms.sum()), (name,), equals=True)
    slack = _ROUNDING * exact.sub_gaussian**2
    return tuple(
        Inequality(name, claim.value, claim.at_least, _holds(claim, claims, slack), claim.equals)
        for name, claim in claims.items()
    )


def _holds(claim: _Claim, claims: Claims, slack: float) -> bool:
    value, limits = claim.value, [claims[name].value for name in claim.at_least]
    if claim.equals:
        return all(math.isclose(value, limit, rel_tol=1e-8, abs_tol=1e-10) for limit in limits)
    return all(value**2 >= limit**2 * (1 - 1e-9) - slack for limit in limits)


def _hierarchy(exact: Findings, n: int) -> Claims:
    sigma = exact.sub_gaussian
    bounds = np.asarray(kl_bound(exact.divergences[:, None], sub_gaussian=sigma))
    claims, limits = {}, ("|gen|",)
    for layer in reversed(range(len(bounds))):
        name = f"KL bound {layer}"
        at_least = limits if layer else (*limits, "contracted bound")
        claims[name] = _Claim(float(bounds[layer]), at_least)
        limits = ("|gen|", name)
    claims["information bound"] = _Claim(sigma * math.sqrt(2 * exact.information / n), limits[1:])
    finite = sigma * math.sqrt(2 * exact.log_count / n)
    return {**claims, "finite-space bound": _Claim(finite, ("information bound",))}


def _contracted(exact: Findings, n: int) -> Claims:
    last = f"KL bound {len(exact.coefficients)}"
    label = np.full(n, exact.label_information)
    rest = np.full(n, max(exact.divergences[0] - exact.label_information, 0.0))
    sigma = exact.sub_gaussian
    contracted = label_aware_bound(label, rest, exact.coefficients, sub_gaussian=sigma)
    finite = finite_parameter_bound(label, exact.log_count, exact.coefficients, sub_gaussian=sigma)
    return {
        "contracted bound": _Claim(float(contracted), (last,)),
        "contracted finite-space bound": _Claim(float(finite), ("contracted bound",)),
    }


def _gibbs(exact: Findings, experiment: Experiment) -> Claims:
    a, n, sigma = experiment.inverse_temperature, experiment.size, exact.sub_gaussian
    identity = gibbs_generalization(exact.information + exact.lautum, a)
    share = exact.label_information / exact.divergences[0] if exact.divergences[0] > 0 else 1.0
    eta = contraction_product(exact.coefficients)
    contracted = gibbs_bound(sigma, a, n, contraction=eta, label_share=min(share, 1.0))
    return {
        "Gibbs identity": _Claim(float(identity), ("|gen|",), equals=True),
        "contracted Gibbs bound": _Claim(float(contracted), ("|gen|",)),
        "Gibbs bound": _Claim(float(gibbs_bound(sigma, a, n)), ("contracted Gibbs bound",)),
    }
