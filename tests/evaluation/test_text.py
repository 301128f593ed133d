"""The metrics of GLUE and SuperGLUE against values computed by hand."""

import math
import warnings

import numpy as np
import pytest

from kdjax.data.text.tasks import TASKS
from kdjax.errors import UserError
from kdjax.evaluation.text import task_metrics

# By hand: true positives 3, false positives 1, false negatives 2, true negatives 4.
LABELS = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
GUESSES = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])


def logits(guesses, classes=2):
    return 3.0 * np.eye(classes)[guesses] - 1.0


class TestByHand:
    def test_accuracy(self):
        for name in ("glue/sst2", "glue/qnli", "glue/wnli", "super_glue/boolq", "super_glue/wsc"):
            assert task_metrics(name, logits(GUESSES), LABELS) == {"accuracy": 0.7}

    def test_f1_of_class_1(self):
        # precision 3/4, recall 3/5: 2 * 3 / (2 * 3 + 1 + 2)
        for name in ("glue/mrpc", "glue/qqp"):
            scores = task_metrics(name, logits(GUESSES), LABELS)
            assert list(scores) == ["f1", "accuracy"]
            assert scores["f1"] == pytest.approx(2 / 3, abs=1e-12)
            assert scores["accuracy"] == 0.7

    def test_matthews(self):
        # (3 * 4 - 1 * 2) / sqrt((3 + 1) (3 + 2) (4 + 1) (4 + 2))
        scores = task_metrics("glue/cola", logits(GUESSES), LABELS)
        assert scores["matthews"] == pytest.approx(10 / math.sqrt(4 * 5 * 5 * 6), abs=1e-12)
        turned = task_metrics("glue/cola", -logits(GUESSES), LABELS)
        assert turned["matthews"] == pytest.approx(-scores["matthews"], abs=1e-12)

    def test_macro_f1(self):
        # entailment 2 tp, 1 fp, 1 fn: 2/3; contradiction 1 tp, 1 fn: 2/3; neutral 1 fp: 0
        label = np.array([0, 0, 0, 1, 1])
        guess = np.array([0, 0, 2, 1, 0])
        scores = task_metrics("super_glue/cb", logits(guess, 3), label)
        assert scores == {"macro_f1": pytest.approx(4 / 9, abs=1e-12), "accuracy": 0.6}

    def test_macro_f1_excludes_a_class_that_never_occurs(self):
        scores = task_metrics("super_glue/cb", logits(np.array([0, 1]), 3), np.array([0, 1]))
        assert scores["macro_f1"] == 1.0

    def test_correlations(self):
        # ranks 1, 2, 3, 4 against 1, 3, 2, 4: 1 - 6 * (1 + 1) / (4 * 15)
        # deviations (-1.5, -0.5, 0.5, 1.5) and (-1.5, 0.5, -1.5, 2.5): 5.0 / sqrt(5 * 11)
        label = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
        guess = np.array([[1.0], [3.0], [1.0], [5.0]])
        tied = task_metrics("glue/stsb", guess, label)
        assert tied["pearson"] == pytest.approx(5.0 / math.sqrt(5 * 11), abs=1e-12)
        ranks = task_metrics("glue/stsb", np.array([1.0, 3.0, 2.0, 9.0]), label)
        assert ranks["spearman"] == pytest.approx(0.8, abs=1e-12)
        # tied ranks 1.5, 3, 1.5, 4 against 1, 2, 3, 4: 3.0 / sqrt(4.5 * 5)
        assert tied["spearman"] == pytest.approx(3.0 / math.sqrt(4.5 * 5), abs=1e-12)

    def test_exact_match_is_by_question(self):
        groups = np.array([7, 3, 7, 3, 3, 5, 5, 2, 2, 2])  # wrong: rows 3, 4 and 5
        scores = task_metrics("super_glue/multirc", logits(GUESSES), LABELS, groups)
        assert scores == {"f1": pytest.approx(2 / 3, abs=1e-12), "exact_match": 0.5}


class TestDegenerate:
    @pytest.mark.parametrize("name", TASKS)
    @pytest.mark.parametrize("constant", [0, 1])
    def test_a_constant_prediction_is_finite_without_warning(self, name, constant):
        task = TASKS[name]
        label = np.arange(12) % max(2, len(task.class_names))
        guess = np.full(12, constant)
        values = guess.astype(float) if task.bounds else logits(guess, len(task.class_names))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = task_metrics(name, values, label, np.arange(12) // 3)
        assert tuple(scores) == task.metrics
        assert all(math.isfinite(value) for value in scores.values())
        for zero in {"matthews", "pearson", "spearman"} & set(scores):
            assert scores[zero] == 0.0

    def test_no_positives(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nothing = np.zeros(4, int)
            scores = task_metrics("glue/mrpc", logits(nothing), nothing)
        assert scores == {"f1": 0.0, "accuracy": 1.0}

    def test_constant_labels(self):
        scores = task_metrics("glue/stsb", np.arange(4.0), np.full(4, 2.5))
        assert scores == {"pearson": 0.0, "spearman": 0.0}

    def test_nan_gives_nan(self):
        values = logits(GUESSES)
        values[3, 1] = np.nan
        assert math.isnan(task_metrics("glue/sst2", values, LABELS)["accuracy"])

    def test_logits_may_be_minus_infinity(self):
        values = np.where(logits(GUESSES) > 0, 1.0, -np.inf)
        assert task_metrics("glue/sst2", values, LABELS)["accuracy"] == 0.7


class TestErrors:
    def test_invalid_shapes_are_errors(self):
        with pytest.raises(ValueError, match=r"logits \(10, 3\) and labels \(10,\)"):
            task_metrics("glue/sst2", logits(GUESSES, 3), LABELS)
        with pytest.raises(ValueError, match=r"logits \(10, 2\) and labels \(9,\)"):
            task_metrics("glue/sst2", logits(GUESSES), LABELS[:9])
        with pytest.raises(ValueError, match=r"logits \(0, 2\)"):
            task_metrics("glue/sst2", np.zeros((0, 2)), np.zeros(0))
        with pytest.raises(ValueError, match="groups None and labels"):
            task_metrics("super_glue/multirc", logits(GUESSES), LABELS)

    def test_an_unknown_task_is_an_error(self):
        with pytest.raises(UserError, match="did you mean glue/stsb"):
            task_metrics("glue/sts-b", logits(GUESSES), LABELS)
