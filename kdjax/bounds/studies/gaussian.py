"""The Gaussian example: bounds against layer, samples, rank and norm, beside the true gen.

X | Y ~ N(Y mu, s^2 I_d), Y = +-1 in equal parts. Layers T_l = W_l ... W_1 x = A_l x are random and
do not look at the data; the head is the mean estimator in the last layer's space, of length one:
y_hat = v.T_L with v = A_L V / |A_L V|, V = (1/n) sum Y_i X_i. Two losses: 0-1, and the ramp
min(1, max(0, 1 - y y_hat)), which is 1-Lipschitz in (y_hat, y). Both are 1/2-sub-Gaussian.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from kdjax import bounds
from kdjax.bounds._backend import check_positive, check_whole
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study
from kdjax.types import UserError

__all__ = ["Gaps", "gaps", "gaussian"]

SUB_GAUSSIAN = 0.5  # losses in [0, 1]
LOSS_LIPSCHITZ = 1.0  # of the ramp


class Gaps(NamedTuple):
    """gen of both losses: means over data sets, and standard errors of these means."""

    zero_one: float
    zero_one_error: float
    ramp: float
    ramp_error: float


class _Point(NamedTuple):
    """A setting: layers, samples, the true gaps and the bounds of every layer from 0 on."""

    products: list[np.ndarray]
    n: int
    gaps: Gaps
    kl: np.ndarray
    wasserstein: np.ndarray


def gaussian(
    *,
    seed: int,
    widths: Sequence[int],
    size: int,
    signal: float,
    deviation: float,
    sizes: Sequence[int],
    ranks: Sequence[int],
    gains: Sequence[float],
    draws: int,
) -> Study:
    """Compute the four panels.

    Args:
        seed: of layers and data sets.
        widths: d_0 (input) to d_L.
        size: n where it does not vary.
        signal: |mu|.
        deviation: s.
        sizes: n of the second panel.
        ranks: of a single random projection, third panel.
        gains: factors of every layer, fourth panel.
        draws: data sets of the Monte Carlo estimate.

    Returns:
        A Study; `broken` names settings in which an estimated gen exceeds a bound by more than
        four standard errors.

    Raises:
        UserError: sizes below 2, ranks above the input's width, numbers that are not positive.
    """
    check_whole("widths", list(widths), 1)
    check_whole("size", size, 2)
    check_whole("sizes", list(sizes), 2)
    check_whole("ranks", list(ranks), 1)
    check_whole("draws", draws, 2)
    check_positive("signal", signal)
    check_positive("deviation", deviation)
    check_positive("gains", list(gains))
    if len(widths) < 2 or max(ranks) > widths[0]:
        raise UserError(f"ranks: must be at most the input's width, {widths[0]}, of two or more")
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(b, a)) / a**0.5 for a, b in itertools.pairwise(widths)]
    tall = np.linalg.qr(rng.normal(size=(widths[0], widths[0])))[0]

    def point(weights: Sequence[np.ndarray], n: int) -> _Point:
        return _point(weights, n, signal, deviation, draws, rng)

    main = point(layers, size)
    by_size = [point(layers, n) for n in sizes]
    by_rank = [point([tall[:rank]], size) for rank in ranks]
    by_gain = [point([gain * w for w in layers], size) for gain in gains]
    depth = list(range(len(widths)))
    panels = (
        Panel(f"layer (n = {size})", "layer", "gen and bounds", _by_layer(main), "y"),
        _panel("samples, last layer", "n", sizes, by_size, "xy"),
        _panel(f"rank of one projection (n = {size})", "rank", ranks, by_rank, "xy"),
        _panel(f"factor of every layer (n = {size})", "factor", gains, by_gain, "xy"),
    )
    named = [("main", main)]
    for what, values, points in (
        ("n", sizes, by_size), ("rank", ranks, by_rank), ("factor", gains, by_gain)
    ):  # fmt: skip
        named += [(f"{what} = {v:g}", p) for v, p in zip(values, points, strict=True)]
    broken = [name for name, found in named if _exceeds(found)]
    sheets = (_layers(main, depth), _settings(named))
    return Study("Gaussian classification: bounds beside the true gen", panels, sheets, broken)


def gaps(
    product: np.ndarray,
    mean: np.ndarray,
    deviation: float,
    n: int,
    draws: int,
    rng: np.random.Generator,
) -> Gaps:
    """Estimate gen of the head on A x, by Monte Carlo over V with the rest in closed form.

    Given V, a margin Y y_hat is normal: around a.mu for a fresh point and around a.V for a training
    point, with deviations s|a| and s|a| sqrt(1 - 1/n), where a = A' v.

    Args:
        product: A, [d_L, d].
        mean: mu, [d].
        deviation: s.
        n: samples.
        draws: of V.
        rng: consumed.

    Returns:
        Gaps.
    """
    estimate = mean + deviation / n**0.5 * rng.normal(size=(draws, len(mean)))
    head = estimate @ product.T
    head /= np.linalg.norm(head, axis=1, keepdims=True)
    pulled = head @ product
    wide = deviation * np.linalg.norm(pulled, axis=1)
    narrow = wide * (1 - 1 / n) ** 0.5
    fresh, own = pulled @ mean, (pulled * estimate).sum(axis=1)
    found = []
    for risk in (lambda m, s: ndtr(-m / s), _ramp):
        differences = risk(fresh, wide) - risk(own, narrow)
        found += [float(differences.mean()), float(differences.std(ddof=1) / draws**0.5)]
    return Gaps(*found)


def _ramp(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E min(1, max(0, 1 - z)) of a normal z."""

    def below(level: float) -> np.ndarray:  # E max(0, level - z)
        t = (level - mean) / deviation
        return (level - mean) * ndtr(t) + deviation * np.exp(-(t**2) / 2) / (2 * np.pi) ** 0.5

    return below(1.0) - below(0.0)


def _point(
    weights: Sequence[np.ndarray],
    n: int,
    signal: float,
    deviation: float,
    draws: int,
    rng: np.random.Generator,
) -> _Point:
    products = [np.eye(weights[0].shape[1])]
    for weight in weights:
        products.append(weight @ products[-1])
    mean = np.zeros(len(products[0]))
    mean[0] = signal
    ranks = np.array([np.linalg.matrix_rank(product) for product in products])
    norms = np.array([np.linalg.norm(product) for product in products])
    tails = bounds.lipschitz_tails(np.array([np.linalg.norm(w, 2) for w in weights]))
    return _Point(
        products,
        n,
        gaps(products[-1], mean, deviation, n, draws, rng),
        np.asarray(bounds.gaussian_kl_bound(ranks, n, sub_gaussian=SUB_GAUSSIAN)),
        np.asarray(
            bounds.gaussian_wasserstein_bound(
                norms, deviation, n, np.asarray(tails), loss_lipschitz=LOSS_LIPSCHITZ
            )
        ),
    )


def _exceeds(point: _Point) -> bool:
    found, least = point.gaps, point.kl.min()
    zero_one = abs(found.zero_one) - 4 * found.zero_one_error
    ramp = abs(found.ramp) - 4 * found.ramp_error
    return bool(zero_one > least or ramp > min(least, point.wasserstein.min()))


def _by_layer(point: _Point) -> tuple[Line, ...]:
    x = list(range(len(point.kl)))
    same = lambda value: [value] * len(x)  # noqa: E731
    found = point.gaps
    return (
        Line("KL bound", "upper bound", x, point.kl.tolist()),
        Line("Wasserstein bound, ramp loss", "upper bound", x, point.wasserstein.tolist()),
        Line("gen, 0-1 loss", "estimate", x, same(found.zero_one), same(found.zero_one_error)),
        Line("gen, ramp loss", "estimate", x, same(found.ramp), same(found.ramp_error)),
    )


def _panel(
    title: str, name: str, values: Sequence[float], points: Sequence[_Point], log: str
) -> Panel:
    """Curves of the last layer against what varies."""
    column = lambda get: [get(point) for point in points]  # noqa: E731
    lines = (
        Line("KL bound", "upper bound", values, column(lambda p: p.kl[-1])),
        Line(
            "Wasserstein bound, ramp loss",
            "upper bound",
            values,
            column(lambda p: p.wasserstein[-1]),
        ),
        Line(
            "gen, 0-1 loss",
            "estimate",
            values,
            column(lambda p: p.gaps.zero_one),
            column(lambda p: p.gaps.zero_one_error),
        ),
        Line(
            "gen, ramp loss",
            "estimate",
            values,
            column(lambda p: p.gaps.ramp),
            column(lambda p: p.gaps.ramp_error),
        ),
    )
    return Panel(title, name, "gen and bounds", lines, log)


def _layers(point: _Point, depth: Sequence[int]) -> Sheet:
    funnel = [int(bounds.funnel_layer(values)) for values in (point.kl, point.wasserstein)]
    rows = []
    for layer, product in zip(depth, point.products, strict=True):
        marks = [" (funnel)" if layer == at else "" for at in funnel]
        rows.append(
            (
                f"layer {layer}",
                f"{point.kl[layer]:.4g}{marks[0]}",
                f"{point.wasserstein[layer]:.4g}{marks[1]}",
                int(np.linalg.matrix_rank(product)),
                float(np.linalg.norm(product)),
            )
        )
    header = ("layer", "KL bound", "Wasserstein bound", "rank", "Frobenius norm")
    return Sheet("By layer", header, rows, words=1)


def _settings(named: Sequence[tuple[str, _Point]]) -> Sheet:
    rows = [
        (
            name,
            found.gaps.zero_one,
            found.gaps.zero_one_error,
            found.gaps.ramp,
            found.gaps.ramp_error,
            found.kl[-1],
            found.wasserstein[-1],
            "violated" if _exceeds(found) else "held",
        )
        for name, found in named
    ]
    header = (
        "setting",
        "gen, 0-1",
        "its error",
        "gen, ramp",
        "its error",
        "KL bound",
        "Wasserstein bound (ramp)",
        "gen <= bounds",
    )
    notes = (
        "gen: Monte Carlo over data sets with its standard error. Bounds: closed forms of the last "
        "layer, valid because the layers did not look at the data.",
    )
    return Sheet("By setting", header, rows, words=1, notes=notes)
