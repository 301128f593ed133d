"""Metrics of classification against float64 formulas, for two members at once."""

import numpy as np
import pytest
from scipy.special import log_softmax

from kdjax.evaluation import classification
from kdjax.evaluation.task import EvalSpec, Predictions
from kdjax.types import Spec

LABELS = np.random.default_rng(0).integers(0, 4, 60)
EVALUATION = EvalSpec(Spec((2, 2, 1), 4, tuple("abcd"), (0.0,), (1.0,), 1.0), 10, 8)


@pytest.fixture(scope="module")
def predictions():
    """Members of two roles: confident and unsure networks that know the label half of the time."""
    rng = np.random.default_rng(1)
    hint = 3.0 * np.eye(4)[LABELS] * (rng.random((60, 1)) < 0.5)

    def outputs():
        return np.stack([scale * (hint + rng.normal(size=(60, 4))) for scale in (1, 6)])

    return Predictions("test", {"teacher": outputs(), "student": outputs()}, LABELS)


def test_metrics_of_each_member(predictions):
    fitted = classification.fit_temperatures(lambda split: predictions, True)
    scores, bins = classification.test_metrics(EVALUATION, predictions, fitted)
    during = classification.validation_metrics(EVALUATION, predictions, {})
    for role, logits in predictions.outputs.items():
        for member, z in enumerate(logits):
            log_p = log_softmax(z, axis=-1)
            nll = -log_p[np.arange(60), LABELS]
            expected = {
                "accuracy": np.mean(z.argmax(-1) == LABELS),
                "nll": nll.mean(),
                "brier": ((np.exp(log_p) - np.eye(4)[LABELS]) ** 2).sum(-1).mean(),
                "entropy": -(np.exp(log_p) * log_p).sum(-1).mean(),
            }
            for name, value in expected.items():
                for table in (scores, during):
                    assert table[f"{role}/{name}"][member] == pytest.approx(value, rel=1e-4), name
            assert np.sum(bins[role]["before"]["count"][member]) == 60
        assert scores[f"{role}/temperature"][1] > 3 * scores[f"{role}/temperature"][0]
        assert np.all(scores[f"{role}/nll_calibrated"] <= scores[f"{role}/nll"] + 1e-4)
    first, second = (logits.argmax(-1) for logits in predictions.outputs.values())
    same = first == second
    np.testing.assert_allclose(scores["agreement"], np.mean(same, axis=-1), rtol=1e-6)


def test_certain_predictions_have_no_entropy():
    logits = np.array([[[-np.inf, 0.0], [0.0, -np.inf]]], np.float32)
    metrics = classification.basic_metrics(logits, np.array([1, 0]))
    assert float(metrics["entropy"][0]) == 0.0


def test_pooled_bins_are_weighted_by_their_counts():
    bins = {"count": [[1, 0], [3, 0]], "accuracy": [[1.0, 0], [0.0, 0]],
            "confidence": [[0.9, 0], [0.5, 0]]}  # fmt: skip
    pooled = classification.pool_bins(bins, [0, 1])
    assert pooled == {"count": [4, 0], "accuracy": [0.25, 0], "confidence": [0.6, 0.0]}


def test_a_member_with_nan_has_no_accuracy_and_no_agreement():
    logits = np.stack([np.full((4, 2), np.nan), np.zeros((4, 2))]).astype(np.float32)
    metrics = classification.basic_metrics(logits, np.zeros(4, int))
    assert np.isnan(metrics["accuracy"]).tolist() == [True, False]
    agreement = classification.agreement({"a": logits, "b": np.zeros((2, 4, 2))})["agreement"]
    np.testing.assert_array_equal(agreement, [np.nan, 1.0])


def test_bins_of_a_member_with_nan_are_left_out():
    bins = {"count": np.array([[2.0, 0.0], [3.0, 1.0]]), "accuracy": np.array([[1.0, 0], [0.5, 0]]),
            "confidence": np.array([[np.nan, 0], [0.5, 0.2]])}  # fmt: skip
    pooled = classification.pool_bins(bins, [0, 1])
    assert pooled == {"count": [3.0, 1.0], "accuracy": [0.5, 0.0], "confidence": [0.5, 0.2]}
