"""Exact enumeration of a tiny learner: its generalization error and all that bounds need.

A network is a chain of channels. Channel l is a table [choices, from, to]: the law of the next
representation for each choice of the layer's weights (0 and 1 only, unless it has noise). All data
sets, weights and representations are enumerated, so every number is exact. Host, float64.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdjax.bounds._backend import Numbers, check_integer, check_positive, check_unit_interval
from kdjax.errors import UserError

_CELLS = 20_000_000  # data sets x weights: 160 MB


class Experiment(NamedTuple):
    """A learner small enough to enumerate.

    `law` [X, Y] of one example; `channels`, first layer first, each [choices, from, to];
    `loss` [T_L, Y]; `size` n; `inverse_temperature` a of the Gibbs posterior proportional to
    exp(-a x mean training loss) under a uniform prior; math.inf is ERM, ties shared.
    """

    law: Numbers
    channels: Sequence[Numbers]
    loss: Numbers
    size: int
    inverse_temperature: float


class Findings(NamedTuple):
    """Exact numbers of a learner: information in nats, losses in the unit of the loss.

    `generalization` = E[population - training loss]; `divergences` D_l of layers 0 to L (0 is
    I(Z_i; W)); `split`: D_l as (later weights, earlier weights), [L + 1, 2]; `information`
    I(D; W); `lautum` KL(P_D P_W || P_DW), infinite for ERM; `label_information` I(Y_i; W);
    `coefficients` [L], Dobrushin's, an upper value of eta_l; `sub_gaussian` (max - min) / 2 of
    the loss; `log_count` ln|W|.
    """

    generalization: float
    divergences: np.ndarray
    split: np.ndarray
    information: float
    lautum: float
    label_information: float
    coefficients: np.ndarray
    sub_gaussian: float
    log_count: float


class _Tables(NamedTuple):
    law: np.ndarray  # [X, Y]
    channels: list[np.ndarray]
    loss: np.ndarray  # [T_L, Y]


def enumerate_learner(experiment: Experiment) -> Findings:
    """Enumerate every data set, weight and representation of a tiny learner; exact.

    The learner ignores the order of its examples, so that all have the numbers of one.

    Args:
        experiment: law, channels, loss, n, inverse temperature.

    Returns:
        Findings.

    Raises:
        UserError: tables that are no distributions or do not fit, more than 20,000,000 pairs of
            data set and weights.

    Source: reconstruction, from the definitions alone; no bound enters.

    >>> coin = Experiment([[0.5, 0.5]], [[[[1, 0]], [[0, 1]]]], [[0, 1], [1, 0]], 1, math.inf)
    >>> coin = coin._replace(channels=[np.eye(2)[:, None, :]])  # the weight is the answer
    >>> print(enumerate_learner(coin).generalization)  # memorises its one label
    0.5
    """
    tables = _checked(experiment)
    choices = [channel.shape[0] for channel in tables.channels]
    composed = _compose(tables)
    joint, risks = _learn(experiment, tables, composed[-1])
    weights = joint.sum(0)
    data = joint.sum(1)
    n = experiment.size
    population = risks @ tables.law.ravel()
    training = _totals(risks, n) / n
    generalization = float(weights @ population - (joint * training).sum())
    product = np.outer(data, weights)
    cells = tables.law.size
    train = joint.reshape(cells, -1, weights.size).sum(1).reshape(*tables.law.shape, -1)
    test = tables.law[:, :, None] * weights
    pairs = [
        (np.einsum("xyw,wxt->tyw", train, c), np.einsum("xyw,wxt->tyw", test, c)) for c in composed
    ]
    return Findings(
        generalization,
        np.array([_kl(*pair) for pair in pairs]),
        np.array([_split(*pair, math.prod(choices[:at])) for at, pair in enumerate(pairs)]),
        _kl(joint, product),
        _kl(product, joint),
        _kl(train.sum(0), test.sum(0)),
        np.array([_dobrushin(channel) for channel in tables.channels]),
        float(np.ptp(tables.loss)) / 2,
        math.log(weights.size),
    )


def _compose(tables: _Tables) -> list[np.ndarray]:
    """Return the channels from the input to layers 0 to L for every weight, each [W, X, T_l].

    Weights are numbered with the first layer slowest.
    """
    total = math.prod(channel.shape[0] for channel in tables.channels)
    inputs = tables.law.shape[0]
    head = np.eye(inputs)[None]  # [choices so far, X, T_l]
    composed = [np.repeat(head, total, axis=0)]
    for channel in tables.channels:
        head = np.einsum("axs,kst->akxt", head, channel).reshape(-1, inputs, channel.shape[2])
        composed.append(np.repeat(head, total // len(head), axis=0))
    return composed


def _totals(risks: np.ndarray, n: int) -> np.ndarray:
    """Return the sum of the losses of every data set under every weight, [Z^n, W]."""
    total = np.zeros((1, len(risks)))
    for _ in range(n):
        total = (total[:, None] + risks.T[None]).reshape(-1, len(risks))
    return total


def _learn(
    experiment: Experiment, tables: _Tables, channel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the law of data set and weights [Z^n, W], and an example's expected loss [W, Z]."""
    risks = np.einsum("wxt,ty->wxy", channel, tables.loss).reshape(len(channel), -1)
    n, a = experiment.size, experiment.inverse_temperature
    training = _totals(risks, n) / n
    excess = training - training.min(axis=1, keepdims=True)
    # Sums of equal losses in another order differ in the last digit and still count as a tie.
    share = (excess < 1e-12).astype(float) if math.isinf(a) else np.exp(-a * excess)
    data = np.ones(1)
    for _ in range(n):
        data = np.outer(data, tables.law.ravel()).ravel()
    return data[:, None] * share / share.sum(axis=1, keepdims=True), risks


def _kl(first: np.ndarray, second: np.ndarray) -> float:
    """Return KL in nats; infinite where only `second` is 0.

    A product of two marginals is at least the square of their joint probability. Where that square
    underflows, a cell adds less than 1e-150 and is left out.
    """
    support = first > math.sqrt(np.finfo(float).tiny)
    if np.any(second[support] <= 0):
        return math.inf
    terms = first[support] * (np.log(first[support]) - np.log(second[support]))
    return max(float(terms.sum()), 0.0)


def _split(train: np.ndarray, test: np.ndarray, heads: int) -> tuple[float, float]:
    """Split D_l: I(T_i, Y_i; later weights | earlier ones), and the divergence given these."""
    train = train.reshape(*train.shape[:2], heads, -1)
    test = test.reshape(train.shape)
    weights = test.sum((0, 1))  # [head, tail]
    share = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)
    head = train.sum(3)
    return _kl(train, head[..., None] * share), _kl(head, test.sum(3))


def _dobrushin(channel: np.ndarray) -> float:
    """Return the largest total variation of two outputs over weights, an upper value of eta."""
    gaps = np.abs(channel[:, :, None, :] - channel[:, None, :, :]).sum(-1) / 2
    return min(float(gaps.max()), 1.0)


def _checked(experiment: Experiment) -> _Tables:
    check_integer("size", experiment.size, 1)
    if not math.isinf(experiment.inverse_temperature):
        check_positive("inverse_temperature", experiment.inverse_temperature)
    law, loss = np.asarray(experiment.law, float), np.asarray(experiment.loss, float)
    channels = [np.asarray(channel, float) for channel in experiment.channels]
    _check_law("law", law.ravel() if law.ndim == 2 else np.zeros(0))
    states = law.shape[0]
    for number, channel in enumerate(channels, start=1):
        if channel.ndim != 3 or channel.shape[1] != states:
            raise UserError(
                f"channel {number}: shape {channel.shape} must be [choices, {states}, to]"
            )
        _check_law(f"channel {number}", channel)
        states = channel.shape[2]
    if loss.shape != (states, law.shape[1]) or not np.isfinite(loss).all():
        raise UserError(f"loss: shape {loss.shape} must be ({states}, {law.shape[1]}) and finite")
    if np.ptp(loss) == 0:
        raise UserError("loss: all its entries are equal, so nothing can be learned")
    cells = math.prod(channel.shape[0] for channel in channels) * law.size**experiment.size
    if not channels or cells > _CELLS:
        raise UserError(f"experiment: {cells} pairs of data set and weights, at most {_CELLS}")
    return _Tables(law, channels, loss)


def _check_law(name: str, table: np.ndarray) -> None:
    if table.size == 0 or table.min() < 0 or not np.allclose(table.sum(-1), 1, atol=1e-9):
        raise UserError(f"{name}: must hold probabilities >= 0 that sum to 1")


def sign_network(
    widths: Sequence[int],
    *,
    size: int,
    inverse_temperature: float,
    label_noise: float = 0.1,
    drop: float = 0.0,
    levels: Sequence[float] = (-1.0, 1.0),
) -> Experiment:
    """Return an experiment with sign units, weights from `levels` and dropout on hidden layers.

    Inputs are uniform on {-1, 1}^d_0; the label is the sign of the first coordinate, flipped with
    probability `label_noise`; 0-1 loss. A dropped unit gives 0; the sign of 0 is +1. Dropout acts
    in training and at test time.

    Args:
        widths: d_0 (input) to d_L, which must be 1; more than 2 or 3 units are slow.
        size: n.
        inverse_temperature: a; math.inf is ERM.
        label_noise: in [0, 1].
        drop: q, in [0, 1].
        levels: values that one weight takes.

    Returns:
        Experiment, for `enumerate_learner` and `chain`.

    Raises:
        UserError: widths that do not end in 1, probabilities outside [0, 1].

    >>> print([c.shape for c in sign_network([2, 1], size=1, inverse_temperature=1.0).channels])
    [(4, 4, 2)]
    """
    check_integer("widths", list(widths), 1)
    check_unit_interval("label_noise", label_noise)
    check_unit_interval("drop", drop)
    if len(widths) < 2 or widths[-1] != 1:
        raise UserError(f"widths: must be input, hidden ..., 1, got {list(widths)}")
    states = _grid((-1.0, 1.0), widths[0])
    clean = (states[:, :1] > 0) == (np.array([[-1.0, 1.0]]) > 0)
    law = np.where(clean, 1 - label_noise, label_noise) / len(states)
    channels = []
    for layer, (into, out) in enumerate(itertools.pairwise(widths), start=1):
        weights = _grid(levels, into * out).reshape(-1, out, into)
        layer_drop = drop if layer < len(widths) - 1 else 0.0
        targets = _grid((-1.0, 0.0, 1.0) if layer_drop else (-1.0, 1.0), out)
        channels.append(_sign_channel(weights, states, targets, layer_drop))
        states = targets
    return Experiment(law, channels, 1 - np.eye(2), size, inverse_temperature)


def _grid(values: Sequence[float], count: int) -> np.ndarray:
    return np.array(list(itertools.product(values, repeat=count)))


def _sign_channel(
    weights: np.ndarray, states: np.ndarray, targets: np.ndarray, drop: float
) -> np.ndarray:
    signs = np.where(np.einsum("kij,sj->ksi", weights, states) >= 0, 1.0, -1.0)
    equal = signs[:, :, None] == targets
    probabilities = np.where(equal, 1 - drop, np.where(targets == 0, drop, 0.0))
    return probabilities.prod(-1)
