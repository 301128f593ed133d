"""How far apart a network's layers see training and test examples of (representation, class).

The distance of two examples is |t - t'| + label_cost [y != y']. Distances of all pairs are taken
once a layer, of both samples together: the exact plan, the entropic one and the shuffles read them.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import distance as scipy_distance

from kdjax import bounds
from kdjax.types import UserError

SLICES = 64
SHUFFLES = 2
# Of the largest cost: exp(-cost / epsilon) stays a float32; on digits 17 to 42 % above exact.
EPSILON = 0.02
ITERATIONS = 500
NARROW = 64  # up to this width pairs are subtracted; beyond, products of matrices are faster


def layer_distances(
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    label_cost: float,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Measure every layer of a network.

    Args:
      train: layer -> [n, d] representations of training examples.
      test: the same layers, [m, d].
      labels: classes of both, int [n] and [m].
      label_cost: what a change of class costs, in the unit of the representations.
      seed: of slices and shuffles.

    Returns:
      layer -> "w1", exact; "baseline", its mean over two shuffles of both samples: what the sample
      size alone gives; "sliced", a lower value (64 directions of (t, class), a distance that is
      nowhere larger); "entropic", an upper value (the cost of Sinkhorn's plan).

    Raises:
      UserError: a representation that is not finite.
    """
    found: dict[str, dict[str, float]] = {}
    twins = _twins(train, test)  # "pooled" of an mlp is its last hidden layer once more
    n, rng = len(labels[0]), np.random.default_rng(seed)
    apart = label_cost * (np.concatenate(labels)[:, None] != np.concatenate(labels))
    orders = [rng.permutation(len(apart)) for _ in range(SHUFFLES)]
    costs, slices = [], []
    for name, x in train.items():
        if twins[name] != name:
            continue
        if not (np.isfinite(x).all() and np.isfinite(test[name]).all()):
            raise UserError(f"layer {name} holds numbers that are not finite: the run diverged")
        table = _pairs(np.concatenate([x, test[name]])) + apart
        shuffled = [bounds.transport_exact(table[np.ix_(o[:n], o[n:])]) for o in orders]
        costs.append(table[:n, n:])
        w1 = bounds.transport_exact(costs[-1])
        found[name] = {"w1": w1, "baseline": float(np.mean(shuffled))}
        slices.append(_slices((x, test[name]), labels, label_cost, seed))
    # one call for all layers: whatever their widths, costs and slices have one shape
    first, second = (np.stack(side) for side in zip(*slices, strict=True))
    sliced = np.asarray(bounds.wasserstein_1d(first, second)).mean(-1)
    upper = _entropic(np.stack(costs))
    for row, low, high in zip(found.values(), sliced, upper, strict=True):
        row["sliced"], row["entropic"] = float(low), float(high)
    return {name: dict(found[twin]) for name, twin in twins.items()}


def distances(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    label_cost: float,
    seed: int,
) -> dict[str, float]:
    """Measure one layer: samples of (representation [n, d], class [n]); see `layer_distances`."""
    layers = {"": train[0]}, {"": test[0]}
    return layer_distances(*layers, (train[1], test[1]), label_cost, seed)[""]


def _twins(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Each layer's name -> that of the layer before it if both hold the same numbers."""
    found, before = {}, None
    for name in train:
        found[name] = name
        if before is not None and all(np.array_equal(s[name], s[before]) for s in (train, test)):
            found[name] = found[before]
        before = name
    return found


def _pairs(points: np.ndarray) -> np.ndarray:
    """Euclidean distances of all rows, [n, n]."""
    if points.shape[1] <= NARROW:
        return scipy_distance.cdist(points, points)
    centred = points - points.mean(0)
    products = centred @ centred.T
    squares = products.diagonal()
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))


def _slices(
    points: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    label_cost: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Project (t, class) on random directions, [slices, n] and [slices, m].

    Classes are corners label_cost apart, and |(t, c)| is at most |t| + |c|.
    """
    classes = int(max(y.max() for y in labels)) + 1
    corners = label_cost / math.sqrt(2) * np.eye(classes)
    width = points[0].shape[1]
    directions = np.random.default_rng(seed).normal(size=(width + classes, SLICES))
    directions /= np.linalg.norm(directions, axis=0)
    first, second = (
        (x @ directions[:width] + corners[y] @ directions[width:]).T
        for x, y in zip(points, labels, strict=True)
    )
    return first, second


def _entropic(costs: np.ndarray) -> Sequence[float] | np.ndarray:
    epsilon = EPSILON * costs.max((1, 2))
    found = bounds.transport_entropic(
        costs,
        epsilon=np.where(epsilon > 0, epsilon, 1.0),
        max_iterations=ITERATIONS,
        log_domain=False,
    )
    return np.asarray(found.value)
