"""Representations: linear probes of the latent factors, and the dependency of two views.

The networks are frozen. A probe is a softmax regression of one factor on a standardised
representation; it is fitted on pairs of the training drawings and scored on unseen drawings. All
values are arrays over the members of a sweep.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.distill import CriticRole
from kdjax.errors import UserError
from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predict, Predictions, Scores, Task
from kdjax.models import EMBEDDING, as_encoder
from kdjax.types import Array, Model, Outputs, Spec, State, Variables

INVERSE_PENALTY = 0.1  # scikit-learn's C; larger values were slower and no better on drawings
MAX_ITERATIONS = 500


class Probe(NamedTuple):
    """A softmax regression on standardised features."""

    mean: np.ndarray
    scale: np.ndarray
    regression: Any  # a LogisticRegression, or the class if all labels were equal

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of [n, d] features whose label [n] is predicted."""
        ready = (features - self.mean) / self.scale
        constant = isinstance(self.regression, int)
        predicted = self.regression if constant else self.regression.predict(ready)
        return float(np.mean(predicted == labels))


def fit_probe(features: np.ndarray, labels: np.ndarray) -> Probe:
    """Fit a probe by L-BFGS: minimise .1 sum NLL + |weights|^2 / 2 on standardised features.

    Args:
      features: [n, d].
      labels: int [n].

    Raises:
      UserError: features that are not finite: the run diverged.

    >>> x = np.array([[0.0], [1.0], [0.1], [0.9]])
    >>> fit_probe(x, np.array([0, 1, 0, 1])).accuracy(x, np.array([0, 1, 0, 0]))
    0.75
    """
    from sklearn.linear_model import LogisticRegression  # takes a second; only probes need it
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise UserError("a representation is not finite: the run diverged")
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    if len(np.unique(labels)) == 1:
        return Probe(mean, scale, int(labels[0]))
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
    with threadpool_limits(1):  # such small products are several times slower on many threads
        regression.fit((features - mean) / scale, labels)
    return Probe(mean, scale, regression)


def fit_probes(features: Mapping[str, np.ndarray], latents: np.ndarray) -> dict[str, list]:
    """Fit a probe for every role, member and factor: role -> [member][factor], None if diverged.

    Args:
      features: role -> [members, n, d].
      latents: int [n, factors].
    """
    key = (np.ascontiguousarray(latents).tobytes(), latents.dtype.str, latents.shape)
    probes: dict[str, list] = {}
    for role, members in features.items():
        probes[role] = []
        for member in members:
            content = (np.ascontiguousarray(member).tobytes(), member.dtype.str, member.shape)
            finite = np.isfinite(member).all()
            probes[role].append(_fit_factors(content, key) if finite else None)
    return probes


@functools.lru_cache(maxsize=64)  # the last validation and the final scores fit the same probes
def _fit_factors(features: tuple, latents: tuple) -> tuple[Probe, ...]:
    x, z = (np.frombuffer(raw, dtype).reshape(shape) for raw, dtype, shape in (features, latents))
    return tuple(fit_probe(x, factor) for factor in z.T)


def probe_accuracies(
    probes: Mapping[str, list], features: Mapping[str, np.ndarray], latents: np.ndarray
) -> Scores:
    """Return each factor's probe accuracy, "<role>/probe_accuracy_<i>", and their mean.

    Args:
      probes: from `fit_probes`.
      features: role -> [members, n, d], of another split.
      latents: int [n, factors].
    """
    scores: Scores = {}
    for role, members in probes.items():
        table = np.array(
            [
                [probe.accuracy(own, z) for probe, z in zip(row, latents.T, strict=True)]
                if row is not None and np.isfinite(own).all()
                else [np.nan] * latents.shape[1]
                for row, own in zip(members, features[role], strict=True)
            ]
        )  # [members, factors]
        scores[f"{role}/probe_accuracy"] = table.mean(1)
        scores |= {f"{role}/probe_accuracy_{i}": column for i, column in enumerate(table.T)}
    return scores


def critic_estimates(
    evaluation: EvalSpec, features: Mapping[str, np.ndarray], state: Callable[[], State]
) -> Scores:
    """Return the estimate of every critic on the representations of a split, and its limits.

    "<critic>/estimate" is its objective over batches of the training's size, plus ln(batch), in
    nats; for "dual" it is the objective in the metric's unit. "<critic>/ceiling" is ln(batch), the
    upper limit of estimates in nats. "<critic>/mutual_information" is that of the views, if known;
    the expectation of an estimate in nats does not exceed it.

    Args:
      evaluation: has the critics and the batch size.
      features: role -> [members, n, d].
      state: returns the unreplicated state, stacked by member.
    """
    if not evaluation.critics:
        return {}
    plain = state()
    scores: Scores = {}
    for role, comparison in evaluation.critics.items():
        if comparison.critic.layers != ((EMBEDDING, EMBEDDING),):
            continue  # other features are not collected
        own, peer = (features[player] for player in comparison.between)
        size = min(evaluation.batch_size, own.shape[1])
        count = own.shape[1] // size
        shape = (len(own), count, size, -1)
        x, y = (jnp.asarray(z[:, : count * size].reshape(shape)) for z in (own, peer))
        variables = Variables(plain.params[role], plain.stats[role])
        estimate = _estimates(comparison, variables, x, y, plain.hparams[role]["terms"])
        scores[f"{role}/estimate"] = np.asarray(estimate)
        same = np.ones(len(own))
        if comparison.critic.in_nats:
            scores[f"{role}/ceiling"] = same * np.log(size)
            if evaluation.spec.mutual_information is not None:
                scores[f"{role}/mutual_information"] = same * evaluation.spec.mutual_information
    return scores


def _estimates(
    comparison: CriticRole, variables: Variables, x: Array, y: Array, terms: Mapping[str, Any]
) -> Array:
    """Return a critic's mean estimate over blocks [members, blocks, size, width]: [members]."""
    critic = comparison.critic
    key = jax.random.key(0)  # draws a penalty's points, which do not change the estimate

    def one(own: Variables, a: Array, b: Array, numbers: Mapping[str, Any]) -> Array:
        first, second = (Outputs(z, {EMBEDDING: z}) for z in (a, b))
        batch = {"label": jnp.zeros(len(a), jnp.int32), "mask": jnp.ones(len(a))}
        scalars = {n: {k: v for k, v in t.items() if k != "weight"} for n, t in numbers.items()}
        return critic.loss(own, first, second, batch, scalars, key)[2]["estimate"]

    over_blocks = jax.vmap(one, (None, 0, 0, None))
    return jnp.mean(jax.jit(jax.vmap(over_blocks))(variables, x, y, terms), axis=1)


def fit(predict: Predict, final: bool) -> Fitted:
    """Fit the probes of every role on "train"."""
    predictions = predict("train")
    return fit_probes(predictions.outputs, predictions.labels)


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the accuracies of the probes and the estimates of the critics."""
    accuracies = probe_accuracies(fitted, predictions.outputs, predictions.labels)
    return {**accuracies, **predictions.critics}


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return the validation metrics; probes have no reliability bins."""
    return validation_metrics(evaluation, predictions, fitted), {}


def describe_network(network: Mapping[str, Any], spec: Spec) -> tuple[dict[str, Any], Spec]:
    """Read `embedding` from a network's table as its number of outputs.

    Raises:
      UserError: no width, or one below 1.
    """
    options = dict(network)
    width = options.pop("embedding", None)
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise UserError(
            f"embedding is {width!r}; it must be the width of the encoder's representation, a "
            "whole number >= 1"
        )
    return options, spec._replace(num_classes=width)


def read_entry(model: Model, entry: str) -> Model:
    """Return the encoder of one of the two views."""
    return as_encoder(model, entry=entry)


TASK = Task(
    metrics=lambda spec: {"probe_accuracy": True},
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
    fit=fit,
    describe_network=describe_network,
    read_entry=read_entry,
    estimates=critic_estimates,
    unit="pairs",
)
