"""Contraction against depth and width: is a deeper and narrower network of equal size safer?

Three kinds of noise, each in training and at test time: dropout on the units of a hidden layer,
DropConnect on the matrix before it, Gaussian noise on its (bounded) activations. Beside the
closed forms stand tiny networks of equal size, enumerated in full.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdjax import bounds
from kdjax.bounds._backend import check_whole
from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import chain
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study
from kdjax.types import UserError

__all__ = ["Layout", "contraction", "layout"]

SUB_GAUSSIAN = 0.5  # losses in [0, 1]
KINDS = ("dropout", "DropConnect", "Gaussian noise")
EXACT = ("|gen|", "contracted bound", "contracted finite-space bound", "finite-space bound")


class Layout(NamedTuple):
    """A dense network: the widths of its hidden layers, and its number of weights."""

    hidden: tuple[int, ...]
    weights: int


def contraction(
    *,
    weights: int,
    inputs: int,
    depths: Sequence[int],
    widths: Sequence[int],
    drop: float,
    noise: float,
    levels: int,
    size: int,
    label_information: float,
    tiny: Sequence[Sequence[int]],
    tiny_size: int,
    tiny_inverse_temperature: float,
) -> Study:
    """Compute coefficients and finite-space bounds, and enumerate tiny networks.

    Args:
        weights: at most so many in every network of the first panels.
        inputs: width of the input.
        depths: hidden layers.
        widths: of the panel of one layer.
        drop: q of dropout and DropConnect.
        noise: s of Gaussian noise on activations in [-1, 1].
        levels: values that a weight takes.
        size: n of the bound.
        label_information: I(Y_i; W) of every sample, nats; 0 where a label alone says nothing of
            the weights, as for the mean estimator.
        tiny: widths of sign networks to enumerate, input first, 1 last.
        tiny_size: their n.
        tiny_inverse_temperature: their a.

    Returns:
        A Study.

    Raises:
        UserError: tiny networks that differ in their number of weights, a budget too small for
            one unit a layer, and as the formulas.
    """
    check_whole("depths", list(depths), 1)
    counts = {_count(net) for net in tiny}
    if len(counts) > 1:
        raise UserError(f"tiny: networks of {sorted(counts)} weights; all must have equally many")
    layouts = [layout(depth, weights, inputs) for depth in depths]
    etas = {
        kind: [coefficient(kind, x.hidden, inputs, drop, noise) for x in layouts] for kind in KINDS
    }
    logs = [float(bounds.log_parameter_count([inputs, *x.hidden, 1], levels)) for x in layouts]
    label = np.full(size, label_information)

    def bound(eta: float, log_count: float) -> float:
        return float(
            bounds.finite_parameter_bound(label, log_count, [eta], sub_gaussian=SUB_GAUSSIAN)
        )

    values = {k: [bound(e, g) for e, g in zip(etas[k], logs, strict=True)] for k in KINDS}
    plain = [bound(1.0, g) for g in logs]
    one = {k: [coefficient(k, (w,), inputs, drop, noise) for w in widths] for k in KINDS}
    found = _enumerate(tiny, tiny_size, tiny_inverse_temperature, drop)
    panels = (
        _curves("coefficient, equal size", "hidden layers", "eta of the network", depths, etas),
        _curves("bound, equal size", "hidden layers", "bound", depths, {**values, "none": plain}),
        _curves("coefficient of one layer", "width", "eta of the layer", widths, one, "x"),
        _exact_panel(tiny, found),
    )
    sheets = (_sheet(layouts, etas, values, plain), _exact_sheet(tiny, found))
    broken = [
        f"{row} of {tuple(net)}" for net, rows in zip(tiny, found, strict=True) for row in rows[1]
    ]
    return Study("Contraction against depth and width", panels, sheets, broken)


def layout(depth: int, weights: int, inputs: int) -> Layout:
    """Find the largest network of a depth with at most so many weights (one output, no biases).

    Hidden layers have one width, or the first ones are wider by one.

    Raises:
        UserError: not even a width of one fits.

    >>> layout(2, 40, 4)
    Layout(hidden=(4, 4), weights=36)
    """
    least = inputs + depth
    if least > weights:
        raise UserError(f"weights: {depth} hidden layers need {least} or more, got {weights}")
    hidden, at = [1] * depth, 0
    while True:
        wider = hidden.copy()
        wider[at] += 1
        if _count([inputs, *wider, 1]) > weights:
            return Layout(tuple(hidden), _count([inputs, *hidden, 1]))
        hidden, at = wider, (at + 1) % depth


def _count(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise(widths))


def coefficient(kind: str, hidden: Sequence[int], inputs: int, drop: float, noise: float) -> float:
    """Upper value of a network's coefficient: the product over its hidden layers."""
    width = np.array(hidden)
    if kind == "dropout":
        layers = bounds.dropout_contraction(drop, width)
    elif kind == "DropConnect":
        layers = bounds.dropconnect_contraction(drop, width, np.array([inputs, *hidden[:-1]]))
    else:
        diameter = bounds.activation_diameter(1.0, width)
        layers = bounds.gaussian_noise_contraction(np.asarray(diameter), noise)
    return float(bounds.contraction_product(np.asarray(layers)))


def _enumerate(
    tiny: Sequence[Sequence[int]], size: int, inverse_temperature: float, drop: float
) -> list[tuple[dict[str, float], list[str]]]:
    """Chains of the tiny networks under dropout: values by name, and what does not hold."""
    found = []
    for net in tiny:
        said = {"size": size, "inverse_temperature": inverse_temperature, "drop": drop}
        rows = chain(sign_network(list(net), **said))
        values = {row.name: row.value for row in rows}
        found.append((values, [row.name for row in rows if not row.holds]))
    return found


def _curves(
    title: str,
    x: str,
    y: str,
    values: Sequence[float],
    lines: dict[str, list[float]],
    log: str = "",
) -> Panel:
    drawn = [
        Line("no noise" if kind == "none" else kind, "upper bound", values, line)
        for kind, line in lines.items()
    ]
    return Panel(title, x, y, drawn, log)


def _exact_panel(tiny: Sequence[Sequence[int]], found: Sequence[tuple[dict, list]]) -> Panel:
    names = ["-".join(map(str, net)) for net in tiny]
    lines = [
        Line(
            "gen" if row == "|gen|" else row,
            "exact" if row == "|gen|" else "upper bound",
            range(len(tiny)),
            [values[row] for values, _ in found],
        )
        for row in EXACT
    ]
    title = "tiny networks of equal size, dropout"
    return Panel(title, "widths", "exact gen and bounds", lines, "y", names)


def _sheet(
    layouts: Sequence[Layout],
    etas: dict[str, list[float]],
    values: dict[str, list[float]],
    plain: Sequence[float],
) -> Sheet:
    rows = [
        (
            len(net.hidden),
            "-".join(map(str, sorted({*net.hidden}))),
            net.weights,
            *(etas[kind][at] for kind in KINDS),
            plain[at],
            *(values[kind][at] for kind in KINDS),
        )
        for at, net in enumerate(layouts)
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
    return Sheet("Equal size", header, rows, words=0, notes=notes)


def _exact_sheet(tiny: Sequence[Sequence[int]], found: Sequence[tuple[dict, list]]) -> Sheet:
    rows = [
        (
            "-".join(map(str, net)),
            *(values[row] for row in EXACT),
            "VIOLATED" if broken else "held",
        )
        for net, (values, broken) in zip(tiny, found, strict=True)
    ]
    return Sheet("Tiny networks, enumerated", ("widths", *EXACT, "every inequality"), rows, words=1)
