"""Study of the Gaussian example: bounds and the true gen against layer, samples, rank and norm.

X | Y ~ N(Y mu, s^2 I_d), Y = +-1 in equal parts. Layers T_l = W_l ... W_1 x = A_l x are random and
independent of the data; the head is the mean estimator in the last layer's space, of length one:
y_hat = v.T_L with v = A_L V / |A_L V|, V = (1/n) sum Y_i X_i. Two losses: 0-1, and the ramp
min(1, max(0, 1 - y y_hat)), which is 1-Lipschitz in (y_hat, y). Both are 1/2-sub-Gaussian.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from kdjax import bounds
from kdjax.bounds._backend import check_integer, check_positive
from kdjax.bounds.studies.results import Line, Panel, StudyResult, Table, Values
from kdjax.errors import UserError

SUB_GAUSSIAN = 0.5  # losses in [0, 1]
LOSS_LIPSCHITZ = 1.0  # of the ramp


class Gaps(NamedTuple):
    """Generalization errors of both losses: means over data sets, with standard errors."""

    zero_one: float
    zero_one_error: float
    ramp: float
    ramp_error: float


class _Point(NamedTuple):
    """Layers and samples with the true gaps and the bounds of every layer from 0 on."""

    products: list[np.ndarray]
    gaps: Gaps
    kl: np.ndarray
    wasserstein: np.ndarray


@dataclasses.dataclass(frozen=True)
class GaussianSettings:
    """Layers and data of the four panels.

    `seed`: of layers and data sets; `widths`: d_0 (input) to d_L; `size`: n if it does not vary;
    `signal`: |mu|; `deviation`: s; `sizes`: n of the second panel; `ranks`: of a single random
    projection, third panel; `gains`: factors of every layer, fourth panel; `draws`: data sets of
    the Monte Carlo estimate.
    """

    seed: int
    widths: Sequence[int]
    size: int
    signal: float
    deviation: float
    sizes: Sequence[int]
    ranks: Sequence[int]
    gains: Sequence[float]
    draws: int


def gaussian(settings: GaussianSettings) -> StudyResult:
    """Compute the four panels.

    Returns:
        StudyResult; `broken` names settings in which an estimated gen exceeds a bound by more than
        four standard errors.

    Raises:
        UserError: sizes below 2, ranks above the input's width, numbers that are not positive.
    """
    widths, size = settings.widths, settings.size
    check_integer("widths", list(widths), 1)
    check_integer("size", size, 2)
    check_integer("sizes", list(settings.sizes), 2)
    check_integer("ranks", list(settings.ranks), 1)
    check_integer("draws", settings.draws, 2)
    check_positive("signal", settings.signal)
    check_positive("deviation", settings.deviation)
    check_positive("gains", list(settings.gains))
    if len(widths) < 2 or max(settings.ranks) > widths[0]:
        raise UserError(f"ranks: must be at most the input's width, {widths[0]}, of two or more")
    rng = np.random.default_rng(settings.seed)
    layers = [rng.normal(size=(b, a)) / a**0.5 for a, b in itertools.pairwise(widths)]
    basis = np.linalg.qr(rng.normal(size=(widths[0], widths[0])))[0]
    main = _point(layers, size, settings, rng)
    by_size = [_point(layers, n, settings, rng) for n in settings.sizes]
    by_rank = [_point([basis[:rank]], size, settings, rng) for rank in settings.ranks]
    by_gain = [_point([gain * w for w in layers], size, settings, rng) for gain in settings.gains]
    by_layer = _lines(range(len(widths)), main.kl, main.wasserstein, [main.gaps] * len(widths))
    panels = [Panel(f"layer (n = {size})", "layer", "gen and bounds", by_layer, "y")]
    named = [("main", main)]
    for name, values, points, title in (
        ("n", settings.sizes, by_size, "samples, last layer"),
        ("rank", settings.ranks, by_rank, f"rank of one projection (n = {size})"),
        ("factor", settings.gains, by_gain, f"factor of every layer (n = {size})"),
    ):
        kl, wasserstein = [p.kl[-1] for p in points], [p.wasserstein[-1] for p in points]
        lines = _lines(values, kl, wasserstein, [p.gaps for p in points])
        panels.append(Panel(title, name, "gen and bounds", lines, "xy"))
        named += [(f"{name} = {v:g}", p) for v, p in zip(values, points, strict=True)]
    broken = [name for name, point in named if _exceeds(point)]
    title = "Gaussian classification: bounds beside the true gen"
    return StudyResult(title, panels, (_layer_table(main), _setting_table(named)), broken)


def gaps(
    product: np.ndarray,
    mean: np.ndarray,
    deviation: float,
    n: int,
    draws: int,
    rng: np.random.Generator,
) -> Gaps:
    """Estimate gen of the head on A x, by Monte Carlo over V with the rest in closed form.

    Given V, a margin Y y_hat is normal: around a.mu for a test point and around a.V for a training
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
    test_deviation = deviation * np.linalg.norm(pulled, axis=1)
    train_deviation = test_deviation * (1 - 1 / n) ** 0.5
    test_mean, train_mean = pulled @ mean, (pulled * estimate).sum(axis=1)
    estimates = []
    for risk in (lambda m, s: ndtr(-m / s), _ramp):
        differences = risk(test_mean, test_deviation) - risk(train_mean, train_deviation)
        estimates += [float(differences.mean()), float(differences.std(ddof=1) / draws**0.5)]
    return Gaps(*estimates)


def _ramp(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return E min(1, max(0, 1 - z)) of a normal z."""

    def below(level: float) -> np.ndarray:  # E max(0, level - z)
        t = (level - mean) / deviation
        return (level - mean) * ndtr(t) + deviation * np.exp(-(t**2) / 2) / (2 * np.pi) ** 0.5

    return below(1.0) - below(0.0)


def _point(
    weights: Sequence[np.ndarray], n: int, settings: GaussianSettings, rng: np.random.Generator
) -> _Point:
    products = [np.eye(weights[0].shape[1])]
    for weight in weights:
        products.append(weight @ products[-1])
    mean = np.zeros(len(products[0]))
    mean[0] = settings.signal
    deviation = settings.deviation
    ranks = np.array([np.linalg.matrix_rank(product) for product in products])
    norms = np.array([np.linalg.norm(product) for product in products])
    tails = np.asarray(bounds.lipschitz_tails(np.array([np.linalg.norm(w, 2) for w in weights])))
    wasserstein = bounds.gaussian_wasserstein_bound(
        norms, deviation, n, tails, loss_lipschitz=LOSS_LIPSCHITZ
    )
    return _Point(
        products,
        gaps(products[-1], mean, deviation, n, settings.draws, rng),
        np.asarray(bounds.gaussian_kl_bound(ranks, n, sub_gaussian=SUB_GAUSSIAN)),
        np.asarray(wasserstein),
    )


def _exceeds(point: _Point) -> bool:
    gen, least = point.gaps, point.kl.min()
    zero_one = abs(gen.zero_one) - 4 * gen.zero_one_error
    ramp = abs(gen.ramp) - 4 * gen.ramp_error
    return bool(zero_one > least or ramp > min(least, point.wasserstein.min()))


def _lines(x: Values, kl: Values, wasserstein: Values, gen: Sequence[Gaps]) -> tuple[Line, ...]:
    zero_one, zero_one_error, ramp, ramp_error = zip(*gen, strict=True)
    return (
        Line("KL bound", "upper bound", x, kl),
        Line("Wasserstein bound, ramp loss", "upper bound", x, wasserstein),
        Line("gen, 0-1 loss", "estimate", x, zero_one, zero_one_error),
        Line("gen, ramp loss", "estimate", x, ramp, ramp_error),
    )


def _layer_table(point: _Point) -> Table:
    funnel = [int(bounds.funnel_layer(values)) for values in (point.kl, point.wasserstein)]
    rows = []
    for layer, product in enumerate(point.products):
        marks = [" (funnel)" if layer == index else "" for index in funnel]
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
    return Table("By layer", header, rows, words=1)


def _setting_table(named: Sequence[tuple[str, _Point]]) -> Table:
    rows = [
        (
            name,
            *point.gaps,
            point.kl[-1],
            point.wasserstein[-1],
            "violated" if _exceeds(point) else "held",
        )
        for name, point in named
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
    return Table("By setting", header, rows, words=1, notes=notes)
