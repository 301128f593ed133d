"""The chain of inequalities on one page: what a tiny learner's bounds are, and that they hold."""

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

__all__ = ["Inequality", "chain"]

# Bounds are roots of informations, and it is the information that carries the rounding: squares
# are compared, up to this times the square of the loss's scale.
_ROUNDING = 1e-12


class Inequality(NamedTuple):
    """One row: the quantity `name`, its `value`, and what it must not fall below.

    `holds`: the value is at least those of the rows named in `at_least`, or, with `equals`, the
    same as theirs.
    """

    name: str
    value: float
    at_least: tuple[str, ...]
    holds: bool
    equals: bool = False


def chain(experiment: Experiment) -> tuple[Inequality, ...]:
    """Every bound of a tiny learner beside its true gen, and whether theory's order holds; exact.

    gen, the KL bound of layers L to 0, the bound by I(D;W), the contracted and finite-space
    bounds, the decomposition of every layer's divergence, and for a Gibbs learner (a finite) the
    identity and its two bounds. Coefficients are Dobrushin's.

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
    found = enumerate_learner(experiment)
    values: dict[str, tuple[float, tuple[str, ...], bool]] = {}
    values["|gen|"] = abs(found.generalization), (), False
    _hierarchy(values, found, experiment.size)
    _contracted(values, found, experiment.size)
    if not math.isinf(experiment.inverse_temperature):
        _gibbs(values, found, experiment)
    for layer, (divergence, parts) in enumerate(zip(found.divergences, found.split, strict=True)):
        values[f"divergence {layer}"] = float(divergence), (), False
        values[f"decomposition {layer}"] = float(parts.sum()), (f"divergence {layer}",), True
    slack = _ROUNDING * found.sub_gaussian**2
    return tuple(
        Inequality(name, value, below, _holds(values, value, below, equals, slack), equals)
        for name, (value, below, equals) in values.items()
    )


def _holds(values: dict, value: float, below: tuple[str, ...], equals: bool, slack: float) -> bool:
    others = [values[name][0] for name in below]
    if equals:
        return all(math.isclose(value, o, rel_tol=1e-8, abs_tol=1e-10) for o in others)
    return all(value**2 >= other**2 * (1 - 1e-9) - slack for other in others)


def _hierarchy(values: dict, found: Findings, n: int) -> None:
    bounds = np.asarray(kl_bound(found.divergences[:, None], sub_gaussian=found.sub_gaussian))
    below = "|gen|"
    for layer in reversed(range(len(bounds))):
        values[f"KL bound {layer}"] = (
            float(bounds[layer]),
            tuple(dict.fromkeys(("|gen|", below))),
            False,
        )
        below = f"KL bound {layer}"
    mutual = found.sub_gaussian * math.sqrt(2 * found.information / n)
    values["information bound"] = mutual, (below,), False
    count = found.sub_gaussian * math.sqrt(2 * found.log_count / n)
    values["finite-space bound"] = count, ("information bound",), False


def _contracted(values: dict, found: Findings, n: int) -> None:
    last = f"KL bound {len(found.coefficients)}"
    label = np.full(n, found.label_information)
    rest = np.full(n, max(found.divergences[0] - found.label_information, 0.0))
    sigma = found.sub_gaussian
    contracted = label_aware_bound(label, rest, found.coefficients, sub_gaussian=sigma)
    values["contracted bound"] = float(contracted), (last,), False
    finite = finite_parameter_bound(label, found.log_count, found.coefficients, sub_gaussian=sigma)
    values["contracted finite-space bound"] = float(finite), ("contracted bound",), False
    value, below, equals = values["KL bound 0"]
    values["KL bound 0"] = value, (*below, "contracted bound"), equals


def _gibbs(values: dict, found: Findings, experiment: Experiment) -> None:
    a, n, sigma = experiment.inverse_temperature, experiment.size, found.sub_gaussian
    identity = float(gibbs_generalization(found.information + found.lautum, a))
    values["Gibbs identity"] = identity, ("|gen|",), True
    share = found.label_information / found.divergences[0] if found.divergences[0] > 0 else 1.0
    eta = contraction_product(found.coefficients)
    contracted = gibbs_bound(sigma, a, n, contraction=eta, label_share=min(share, 1.0))
    values["contracted Gibbs bound"] = float(contracted), ("|gen|",), False
    values["Gibbs bound"] = float(gibbs_bound(sigma, a, n)), ("contracted Gibbs bound",), False
