"""Study of contraction against depth and width, for networks of equal size.

Three kinds of noise, each in training and at test time: dropout on the units of a hidden layer,
DropConnect on the matrix before it, Gaussian noise on its (bounded) activations. Closed forms are
compared with tiny networks of equal size that are enumerated exactly.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax import bounds
from kdjax.bounds._backend import check_integer
from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import Inequality, chain
from kdjax.bounds.studies.results import (
    Line,
    Panel,
    StudyResult,
    Table,
    Values,
    inequality_line,
    inequality_rows,
)
from kdjax.errors import UserError

SUB_GAUSSIAN = 0.5  # losses in [0, 1]
KINDS = ("dropout", "DropConnect", "Gaussian noise")
EXACT = ("|gen|", "contracted bound", "contracted finite-space bound", "finite-space bound")


class Layout(NamedTuple):
    """A dense network: the widths of its hidden layers, and its number of weights."""

    hidden: tuple[int, ...]
    weights: int


@dataclasses.dataclass(frozen=True)
class ContractionSettings:
    """Networks, noise and data of the study.

    `weights`: largest number in every network of the first panels; `inputs`: width of the input;
    `depths`: hidden layers; `widths`: of the panel of one layer; `drop`: q of dropout and
    DropConnect; `noise`: s of Gaussian noise on activations in [-1, 1]; `levels`: values that a
    weight takes; `size`: n of the bound; `label_information`: I(Y_i; W) of every sample in nats, 0
    if a label and the weights are independent, as for the mean estimator; `tiny`: widths
    of sign networks to enumerate, input first, 1 last; `tiny_size`: their n;
    `tiny_inverse_temperature`: their a.
    """

    weights: int
    inputs: int
    depths: Sequence[int]
    widths: Sequence[int]
    drop: float
    noise: float
    levels: int
    size: int
    label_information: float
    tiny: Sequence[Sequence[int]]
    tiny_size: int
    tiny_inverse_temperature: float


def contraction(settings: ContractionSettings) -> StudyResult:
    """Compute coefficients and finite-space bounds, and enumerate tiny networks.

    Raises:
        UserError: tiny networks with different numbers of weights, a budget too small for one unit
            in each layer, or an error of the formulas.
    """
    depths, widths, inputs = settings.depths, settings.widths, settings.inputs
    check_integer("depths", list(depths), 1)
    counts = {_count(net) for net in settings.tiny}
    if len(counts) > 1:
        raise UserError(f"tiny: networks of {sorted(counts)} weights; all must have equally many")
    layouts = [layout(depth, settings.weights, inputs) for depth in depths]

    def coefficients(networks: Sequence[Sequence[int]]) -> dict[str, list[float]]:
        drop, noise = settings.drop, settings.noise
        return {k: [coefficient(k, x, inputs, drop, noise) for x in networks] for k in KINDS}

    etas = coefficients([network.hidden for network in layouts])
    label = np.full(settings.size, settings.label_information)
    logs = [bounds.log_parameter_count([inputs, *x.hidden, 1], settings.levels) for x in layouts]
    values = {
        kind: [
            float(bounds.finite_parameter_bound(label, log, [eta], sub_gaussian=SUB_GAUSSIAN))
            for eta, log in zip(kind_etas, logs, strict=True)
        ]
        for kind, kind_etas in {**etas, "none": [1.0] * len(layouts)}.items()
    }
    one_layer = coefficients([(width,) for width in widths])
    chains = [(_name(net), _enumerate(net, settings)) for net in settings.tiny]
    panels = (
        _curves("coefficient, equal size", "hidden layers", "eta of the network", depths, etas),
        _curves("bound, equal size", "hidden layers", "bound", depths, values),
        _curves("coefficient of one layer", "width", "eta of the layer", widths, one_layer, "x"),
        _exact_panel(chains),
    )
    header = ("widths", *EXACT, "every inequality")
    exact = Table("Tiny networks, enumerated", header, inequality_rows(chains, EXACT))
    tables = (_table(layouts, etas, values), exact)
    broken = [f"{row.name} of {net}" for net, rows in chains for row in rows if not row.holds]
    return StudyResult("Contraction against depth and width", panels, tables, broken)


def layout(depth: int, weights: int, inputs: int) -> Layout:
    """Return the largest network of a depth with at most `weights` weights (one output, no biases).

    Hidden layers have one width, or the first ones are wider by one.

    Raises:
        UserError: a width of one does not fit.

    >>> layout(2, 40, 4)
    Layout(hidden=(4, 4), weights=36)
    """
    least = inputs + depth
    if least > weights:
        raise UserError(f"weights: {depth} hidden layers need {least} or more, got {weights}")
    hidden, index = [1] * depth, 0
    while True:
        wider = hidden.copy()
        wider[index] += 1
        if _count([inputs, *wider, 1]) > weights:
            return Layout(tuple(hidden), _count([inputs, *hidden, 1]))
        hidden, index = wider, (index + 1) % depth


def _count(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise(widths))


def coefficient(kind: str, hidden: Sequence[int], inputs: int, drop: float, noise: float) -> float:
    """Return an upper bound of a network's coefficient: the product over its hidden layers."""
    width = np.array(hidden)
    if kind == "dropout":
        layers = bounds.dropout_contraction(drop, width)
    elif kind == "DropConnect":
        layers = bounds.dropconnect_contraction(drop, width, np.array([inputs, *hidden[:-1]]))
    else:
        diameter = bounds.activation_diameter(1.0, width)
        layers = bounds.gaussian_noise_contraction(np.asarray(diameter), noise)
    return float(bounds.contraction_product(np.asarray(layers)))


def _enumerate(widths: Sequence[int], settings: ContractionSettings) -> tuple[Inequality, ...]:
    network = sign_network(
        list(widths),
        size=settings.tiny_size,
        inverse_temperature=settings.tiny_inverse_temperature,
        drop=settings.drop,
    )
    return chain(network)


def _curves(
    title: str, x: str, y: str, values: Values, lines: Mapping[str, Values], log: str = ""
) -> Panel:
    drawn = [
        Line("no noise" if kind == "none" else kind, "upper bound", values, line)
        for kind, line in lines.items()
    ]
    return Panel(title, x, y, drawn, log)


def _name(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))


def _exact_panel(chains: Sequence[tuple[str, Sequence[Inequality]]]) -> Panel:
    x, all_rows = range(len(chains)), [rows for _, rows in chains]
    kinds = ("exact", *["upper bound"] * (len(EXACT) - 1))
    lines = [inequality_line(*row, x, all_rows) for row in zip(EXACT, kinds, strict=True)]
    title, names = "tiny networks of equal size, dropout", [net for net, _ in chains]
    return Panel(title, "widths", "exact gen and bounds", lines, "y", names)


def _table(
    layouts: Sequence[Layout], etas: dict[str, list[float]], values: dict[str, list[float]]
) -> Table:
    rows = [
        (
            len(network.hidden),
            _name(sorted({*network.hidden})),
            network.weights,
            *(etas[kind][index] for kind in KINDS),
            *(values[kind][index] for kind in ("none", *KINDS)),
        )
        for index, network in enumerate(layouts)
    ]
    header = (
        "hidden layers",
        "widths",
        "weights",
        *(f"eta, {kind}" for kind in KINDS),
        "bound, no noise",
        *(f"bound, {kind}" for kind in KINDS),
    )
    notes = (
        "Upper values of eta (a product over hidden layers) and upper bounds of |gen| by the "
        "finite space of weights, for a loss in [0, 1] and labels that alone say nothing of the "
        "weights. Noise must be there at test time too.",
    )
    return Table("Equal size", header, rows, words=0, notes=notes)
