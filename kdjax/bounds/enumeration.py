"""The exact laboratory: a tiny learner enumerated in full, and every bound beside its true gen.

A network is a chain of channels. Channel l is a table [choices, from, to]: the law of the next
representation, for each choice of the layer's weights (0 and 1 only, unless it has noise). Data
sets, weights and representations are all enumerated, so every number is exact. Host, float64.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdjax.bounds._backend import Numbers, check_fraction, check_positive, check_whole
from kdjax.types import UserError

__all__ = ["Experiment", "Findings", "enumerate_learner", "sign_network"]

_CELLS = 20_000_000  # data sets x weights: 160 MB


class Experiment(NamedTuple):
    """A learner small enough to write down.

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
    """What enumeration says, in nats where it is information and else in the unit of the loss.

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

    The learner looks at its examples without order, so one example speaks for all.

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
    >>> print(enumerate_learner(coin).generalization)  # learns its one label by heart
    0.5
    """
    tables = _checked(experiment)
    choices = [channel.shape[0] for channel in tables.channels]
    through = _compose(tables)
    joint, risks = _learn(experiment, tables, through[-1])
    weights = joint.sum(0)
    data = joint.sum(1)
    n = experiment.size
    population = risks @ tables.law.ravel()
    training = _totals(risks, n) / n
    generalization = float(weights @ population - (joint * training).sum())
    product = np.outer(data, weights)
    cells = tables.law.size
    one = joint.reshape(cells, -1, weights.size).sum(1).reshape(*tables.law.shape, -1)
    fresh = tables.law[:, :, None] * weights
    pairs = [
        (np.einsum("xyw,wxt->tyw", one, c), np.einsum("xyw,wxt->tyw", fresh, c)) for c in through
    ]
    return Findings(
        generalization,
        np.array([_kl(*pair) for pair in pairs]),
        np.array([_split(*pair, math.prod(choices[:at])) for at, pair in enumerate(pairs)]),
        _kl(joint, product),
        _kl(product, joint),
        _kl(one.sum(0), fresh.sum(0)),
        np.array([_dobrushin(channel) for channel in tables.channels]),
        float(np.ptp(tables.loss)) / 2,
        math.log(weights.size),
    )


def _compose(tables: _Tables) -> list[np.ndarray]:
    """Channels from the input to layers 0 to L for every weight, each [W, X, T_l].

    Weights are numbered with the first layer slowest.
    """
    total = math.prod(channel.shape[0] for channel in tables.channels)
    inputs = tables.law.shape[0]
    through, done = (
        [np.eye(inputs)[None]],
        [np.broadcast_to(np.eye(inputs), (total, inputs, inputs))],
    )
    for channel in tables.channels:
        longer = np.einsum("axs,kst->akxt", through[-1], channel)
        through.append(longer.reshape(-1, inputs, channel.shape[2]))
        done.append(np.repeat(through[-1], total // len(through[-1]), axis=0))
    return done


def _totals(risks: np.ndarray, n: int) -> np.ndarray:
    """Sum of the losses of every data set under every weight, [Z^n, W]."""
    total = np.zeros((1, len(risks)))
    for _ in range(n):
        total = (total[:, None] + risks.T[None]).reshape(-1, len(risks))
    return total


def _learn(
    experiment: Experiment, tables: _Tables, through: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joint law of data set and weights [Z^n, W], and the expected loss [W, Z] of an example."""
    risks = np.einsum("wxt,ty->wxy", through, tables.loss).reshape(len(through), -1)
    n, a = experiment.size, experiment.inverse_temperature
    training = _totals(risks, n) / n
    excess = training - training.min(axis=1, keepdims=True)
    # Sums of equal losses in another order differ in the last digit: still a tie.
    share = (excess < 1e-12).astype(float) if math.isinf(a) else np.exp(-a * excess)
    data = np.ones(1)
    for _ in range(n):
        data = np.outer(data, tables.law.ravel()).ravel()
    return data[:, None] * share / share.sum(axis=1, keepdims=True), risks


def _kl(first: np.ndarray, second: np.ndarray) -> float:
    """KL in nats; infinite where only `second` is 0."""
    there = first > 0
    if np.any(second[there] <= 0):
        return math.inf
    terms = first[there] * np.log(first[there] / second[there])
    return max(float(terms.sum()), 0.0)


def _split(trained: np.ndarray, fresh: np.ndarray, heads: int) -> tuple[float, float]:
    """D_l as I(T_i, Y_i; later weights | earlier ones) + divergence given the earlier ones."""
    trained = trained.reshape(*trained.shape[:2], heads, -1)
    fresh = fresh.reshape(trained.shape)
    weights = fresh.sum((0, 1))  # [head, tail]
    share = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)
    head = trained.sum(3)
    return _kl(trained, head[..., None] * share), _kl(head, fresh.sum(3))


def _dobrushin(channel: np.ndarray) -> float:
    """Largest total variation between two outputs, over weights: at least eta of the channel."""
    gaps = np.abs(channel[:, :, None, :] - channel[:, None, :, :]).sum(-1) / 2
    return min(float(gaps.max()), 1.0)


def _checked(experiment: Experiment) -> _Tables:
    check_whole("size", experiment.size, 1)
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
    """A ready experiment: sign units, weights out of `levels`, dropout on hidden layers.

    Inputs are uniform on {-1, 1}^d_0; the label is the sign of the first coordinate, flipped with
    probability `label_noise`; 0-1 loss. A dropped unit gives 0; the sign of 0 is +1. Dropout acts
    in training and at test time.

    Args:
        widths: d_0 (input) to d_L, which must be 1; 2 or 3 units are plenty.
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
    check_whole("widths", list(widths), 1)
    check_fraction("label_noise", label_noise)
    check_fraction("drop", drop)
    if len(widths) < 2 or widths[-1] != 1:
        raise UserError(f"widths: must be input, hidden ..., 1, got {list(widths)}")
    states = _grid((-1.0, 1.0), widths[0])
    right = (states[:, :1] > 0) == (np.array([[-1.0, 1.0]]) > 0)
    law = np.where(right, 1 - label_noise, label_noise) / len(states)
    channels = []
    for layer, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        weights = _grid(levels, before * after).reshape(-1, after, before)
        noisy = drop if layer < len(widths) - 1 else 0.0
        targets = _grid((-1.0, 0.0, 1.0) if noisy else (-1.0, 1.0), after)
        channels.append(_sign_channel(weights, states, targets, noisy))
        states = targets
    return Experiment(law, channels, 1 - np.eye(2), size, inverse_temperature)


def _grid(values: Sequence[float], count: int) -> np.ndarray:
    return np.array(list(itertools.product(values, repeat=count)))


def _sign_channel(
    weights: np.ndarray, states: np.ndarray, targets: np.ndarray, drop: float
) -> np.ndarray:
    signs = np.where(np.einsum("kij,sj->ksi", weights, states) >= 0, 1.0, -1.0)
    kept = signs[:, :, None] == targets
    chance = np.where(kept, 1 - drop, np.where(targets == 0, drop, 0.0))
    return chance.prod(-1)
