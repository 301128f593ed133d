"""Metrics of language models against float64 sums over the predicted tokens."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from kdjax.evaluation import TASKS, EvalSpec, Predictions
from kdjax.evaluation import language_model as task
from kdjax.types import Outputs, Spec

MEMBERS, ROWS, LENGTH, WORDS = 2, 3, 5, 7
SPEC = Spec((LENGTH,), WORDS, (), (0.0,), (1.0,), 1.0, vocab_size=WORDS)
MASK = np.array([[1, 1, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])


class Texts(NamedTuple):
    """Stands for a `data.LanguageSet`."""

    num_bytes: dict[str, int]


def case(seed, target):
    r = np.random.default_rng(seed)
    logits = 2 * r.normal(size=(MEMBERS, ROWS, LENGTH, WORDS)).astype("f4")
    features = {"token_mask": jnp.asarray(MASK), "token_targets": jnp.asarray(target)}
    collected = [
        task.collect(Outputs(jnp.zeros(1), {"token_logits": jnp.asarray(z), **features}))
        for z in logits
    ]
    return logits, np.stack(collected)


@pytest.fixture(scope="module")
def scored():
    target = np.random.default_rng(9).integers(0, WORDS, (ROWS, LENGTH))
    both = {role: case(seed, target) for seed, role in enumerate(("student", "teacher"))}
    outputs = {role: collected for role, (_, collected) in both.items()}
    predictions = Predictions("test", outputs, np.zeros(ROWS))
    scores, bins = task.test_metrics(EvalSpec(SPEC, 4, 8, Texts({"test": 40})), predictions, {})
    logits = {role: np.float64(z)[:, MASK > 0] for role, (z, _) in both.items()}
    return scores, bins, logits, target[MASK > 0]


def test_likelihoods(scored):
    scores, _, logits, target = scored
    log_p = log_softmax(logits["student"], axis=-1)
    nll = -log_p[:, np.arange(len(target)), target]
    np.testing.assert_allclose(scores["student/nll"], nll.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(scores["student/perplexity"], np.exp(nll.mean(-1)), rtol=1e-5)
    bits = nll.sum(-1) / math.log(2) / 40
    np.testing.assert_allclose(scores["student/bits_per_byte"], bits, rtol=1e-5)


def test_accuracy_agreement_and_calibration(scored):
    scores, bins, logits, target = scored
    best = {role: z.argmax(-1) for role, z in logits.items()}
    np.testing.assert_allclose(scores["teacher/accuracy"], (best["teacher"] == target).mean(-1))
    agreement = (best["student"] == best["teacher"]).mean(-1)
    np.testing.assert_allclose(scores["agreement"], agreement)
    confidence = np.exp(log_softmax(logits["student"], axis=-1)).max(-1)
    correct = best["student"] == target
    for member in range(MEMBERS):
        error = 0.0
        for low in (0.0, 0.25, 0.5, 0.75):
            inside = (confidence[member] > low) & (confidence[member] <= low + 0.25)
            error += abs(np.sum(correct[member][inside]) - np.sum(confidence[member][inside]))
        np.testing.assert_allclose(scores["student/ece"][member], error / len(target), rtol=1e-5)
    assert np.sum(bins["student"]["before"]["count"]) == MEMBERS * MASK.sum()


def test_metrics_are_named():
    assert set(TASKS["language_model"].metrics(SPEC)) == {
        "bits_per_byte", "nll", "perplexity", "accuracy", "agreement", "ece",
    }  # fmt: skip


def test_metrics_of_two_roles_are_named(scored):
    of_two = {name for name in scored[0] if "/" not in name}
    assert of_two == set(TASKS["language_model"].pair_metrics) == {"agreement"}
