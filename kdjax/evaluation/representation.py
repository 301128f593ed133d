"""What a representation knows: linear probes of the hidden factors, and the dependency measured.

The networks are frozen. A probe is a softmax regression of one factor on a representation that was
standardised; it is fitted on pairs of the training drawings and scored on drawings that nobody has
seen. All values are arrays over the members of a sweep.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.distill.methods import CriticRole
from kdjax.evaluation.task import EvalSpec, Scores
from kdjax.models import EMBEDDING
from kdjax.types import Array, Outputs, State, UserError, Variables

INVERSE_PENALTY = 0.1  # C of scikit-learn: more of it gained nothing on drawings, and took longer
MAX_ITERATIONS = 500


class Probe(NamedTuple):
    """A softmax regression on standardised features."""

    mean: np.ndarray
    scale: np.ndarray
    regression: Any  # sklearn's, or the one class there was

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of [n, d] features whose label [n] is found."""
        ready = (features - self.mean) / self.scale
        constant = isinstance(self.regression, int)
        found = self.regression if constant else self.regression.predict(ready)
        return float(np.mean(found == labels))


def fit_probe(features: np.ndarray, labels: np.ndarray) -> Probe:
    """Fit a probe by L-BFGS: minimise NLL summed x .1 + |weights|^2 / 2, features standardised.

    Args:
      features: [n, d].
      labels: int [n].

    Raises:
      UserError: features that are not finite: the run diverged.

    >>> x = np.array([[0.0], [1.0], [0.1], [0.9]])
    >>> fit_probe(x, np.array([0, 1, 0, 1])).accuracy(x, np.array([0, 1, 0, 0]))
    0.75
    """
    from sklearn.linear_model import LogisticRegression  # a second that others need not wait for
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise UserError("a representation holds numbers that are not finite: the run diverged")
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    if len(np.unique(labels)) == 1:
        return Probe(mean, scale, int(labels[0]))
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
    with threadpool_limits(1):  # products this small are several times slower on many threads
        regression.fit((features - mean) / scale, labels)
    return Probe(mean, scale, regression)


def fit(features: Mapping[str, np.ndarray], latents: np.ndarray) -> dict[str, list]:
    """Fit a probe to every role, member and factor: role -> [member][factor], None where diverged.

    Args:
      features: role -> [members, n, d].
      latents: int [n, factors].
    """
    key = (np.ascontiguousarray(latents).tobytes(), latents.dtype.str, latents.shape)
    found: dict[str, list] = {}
    for role, members in features.items():
        found[role] = []
        for own in members:
            same = (np.ascontiguousarray(own).tobytes(), own.dtype.str, own.shape)
            good = np.isfinite(own).all()
            found[role].append(_fit_factors(same, key) if good else None)
    return found


@functools.lru_cache(maxsize=64)  # the last validation and the final scores fit the same probes
def _fit_factors(features: tuple, latents: tuple) -> tuple[Probe, ...]:
    x, z = (np.frombuffer(raw, dtype).reshape(shape) for raw, dtype, shape in (features, latents))
    return tuple(fit_probe(x, factor) for factor in z.T)


def score(
    probes: Mapping[str, list], features: Mapping[str, np.ndarray], latents: np.ndarray
) -> Scores:
    """Accuracy of each factor's probe, "<role>/probe_accuracy_<i>", and their mean.

    Args:
      probes: from `fit`.
      features: role -> [members, n, d], of another split.
      latents: int [n, factors].
    """
    found: Scores = {}
    for role, members in probes.items():
        table = np.array(
            [
                [probe.accuracy(own, z) for probe, z in zip(row, latents.T, strict=True)]
                if row is not None and np.isfinite(own).all()
                else [np.nan] * latents.shape[1]
                for row, own in zip(members, features[role], strict=True)
            ]
        )  # [members, factors]
        found[f"{role}/probe_accuracy"] = table.mean(1)
        found |= {f"{role}/probe_accuracy_{i}": column for i, column in enumerate(table.T)}
    return found


def dependencies(evaluation: EvalSpec, features: Mapping[str, np.ndarray], state: State) -> Scores:
    """What every critic makes of the representations of a split, and what it could at most.

    "<critic>/estimate" is its objective over batches of training's size, in nats (plus ln(batch))
    or, of "dual", in the metric's unit; "<critic>/ceiling" is ln(batch), beyond which no estimate
    of that kind goes, and "<critic>/mutual_information" the views' own, where it is known, which a
    mean estimate in nats does not exceed but by chance.

    Args:
      evaluation: for the critics and the size of a batch.
      features: role -> [members, n, d].
      state: plain, stacked by member.
    """
    found: Scores = {}
    for role, comparison in evaluation.critics.items():
        if comparison.critic.layers != ((EMBEDDING, EMBEDDING),):
            continue  # other features are not kept
        own, peer = (features[player] for player in comparison.between)
        size = min(evaluation.batch_size, own.shape[1])
        count = own.shape[1] // size
        shape = (len(own), count, size, -1)
        x, y = (jnp.asarray(z[:, : count * size].reshape(shape)) for z in (own, peer))
        variables = Variables(state.params[role], state.stats[role])
        estimate = _estimates(comparison, variables, x, y, state.hparams[role]["terms"])
        found[f"{role}/estimate"] = np.asarray(estimate)
        same = np.ones(len(own))
        if comparison.critic.in_nats:
            found[f"{role}/ceiling"] = same * np.log(size)
            if evaluation.spec.mutual_information is not None:
                found[f"{role}/mutual_information"] = same * evaluation.spec.mutual_information
    return found


def _estimates(
    comparison: CriticRole, variables: Variables, x: Array, y: Array, terms: Mapping[str, Any]
) -> Array:
    """Mean over blocks [members, blocks, size, width] of what a critic reports, [members]."""
    critic = comparison.critic
    key = jax.random.key(0)  # of a penalty's points, which are not reported

    def one(own: Variables, a: Array, b: Array, numbers: Mapping[str, Any]) -> Array:
        first, second = (Outputs(z, {EMBEDDING: z}) for z in (a, b))
        batch = {"label": jnp.zeros(len(a), jnp.int32), "mask": jnp.ones(len(a))}
        scalars = {n: {k: v for k, v in t.items() if k != "weight"} for n, t in numbers.items()}
        return critic.loss(own, first, second, batch, scalars, key)[2]["estimate"]

    over_blocks = jax.vmap(one, (None, 0, 0, None))
    return jnp.mean(jax.jit(jax.vmap(over_blocks))(variables, x, y, terms), axis=1)
