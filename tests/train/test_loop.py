"""The loop's order of events and its handling of non-finite values, without jax."""

import itertools
import os
import signal

import numpy as np
import pytest

from kdjax.errors import RunError
from kdjax.train.loop import DivergenceTracker, Every, Hooks, Plan, Stopped, fit

NAN = float("nan")


def row(members=1, **values):
    """Return a row of metrics, finite except for `values` (`a__b` is the metric "a/b")."""
    metrics = {
        "student/ce/raw": [1.0] * members,
        "student/ce/weighted": [1.0] * members,
        "student/loss": [1.0] * members,
        "student/grad_norm": [1.0] * members,
    }
    metrics |= {name.replace("__", "/"): value for name, value in values.items()}
    return {name: np.array(value) for name, value in metrics.items()}


class TestHealth:
    def test_finite_metrics_give_no_message(self):
        tracker = DivergenceTracker(2)
        assert tracker.check(1, [row(2), row(2)]) == []
        assert tracker.diverged == {}

    def test_the_message_names_member_step_role_and_term_once(self):
        tracker = DivergenceTracker(3)
        bad = row(3, student__ce__raw=[1.0, NAN, 1.0], student__loss=[1.0, NAN, 1.0])
        assert tracker.check(7, [row(3), bad, bad]) == [
            "member 1: step 8: student/ce is not finite"
        ]
        assert tracker.check(10, [bad]) == []
        assert tracker.diverged == {1: "step 8: student/ce is not finite"}

    def test_non_convergence_of_a_term_is_reported_once(self):
        tracker = DivergenceTracker(2)

        def ended(converged, row_error):
            term = {"converged": converged, "row_error": row_error, "iterations": [40.0, 20.0]}
            return row(2, **{f"student__sinkhorn__{name}": value for name, value in term.items()})

        assert tracker.check(1, [ended([1.0, 0.9999], [1e-4, 1e-4])]) == []
        late = ended([1.0, 0.0], [1e-4, 0.25])
        message = "step 3: student/sinkhorn did not converge (row_error 0.25 after 40 iterations)"
        assert tracker.check(2, [row(2), late]) == [f"{message}; raise num_iters or epsilon"]
        assert tracker.check(4, [late]) == []
        assert tracker.diverged == {}

    @pytest.mark.parametrize(
        ("values", "culprit"),
        [
            ({"student__grad_norm": [np.inf]}, "student/grad_norm"),
            ({"student__grad_norm": [NAN], "student__loss": [NAN]}, "student/loss"),
            (
                {"student__loss": [NAN], "teacher__forward_kl__weighted": [NAN]},
                "teacher/forward_kl",
            ),
            ({"student__loss": [NAN], "student__ce__raw": [-np.inf]}, "student/ce"),
        ],
    )
    def test_the_most_specific_metric_is_named(self, values, culprit):
        with pytest.raises(RunError, match=rf"^step 3: {culprit} is not finite\. The last good"):
            DivergenceTracker(1).check(3, [row(**values)])

    def test_stops_if_all_members_diverged(self):
        tracker = DivergenceTracker(2, {"0": "step 2: student/loss is not finite"})
        with pytest.raises(RunError, match=r"member 0: step 2: .*; member 1: step 5: student/loss"):
            tracker.check(5, [row(2, student__loss=[NAN, NAN])])

    def test_members_whose_scores_are_nan_have_diverged(self):
        tracker = DivergenceTracker(2)
        scores = {"student/nll": [1.0, NAN], "student/ece": [NAN, NAN]}
        line = "member 1: step 9: student/nll of validation is NaN"
        assert tracker.check_scores(9, scores) == [line]
        assert tracker.check_scores(9, scores) == []
        with pytest.raises(RunError, match="member 0: step 9: student/nll of validation is NaN"):
            tracker.check_scores(9, {"student/nll": [NAN, NAN]})


def run(tmp, *, every, num_steps=6, start=0, members=1, bad=(), at_step=lambda number: None):
    """Fit with hooks that record their calls."""
    calls = []

    def step(state, batch):
        at_step(batch)
        lost = {m: NAN if batch >= s else 1.0 for m, s in bad}
        losses = [lost.get(m, 1.0) for m in range(members)]
        return state + 1, row(members, student__loss=losses, number=[batch] * members)

    hooks = Hooks(
        step=step,
        read=lambda rows: list(rows),
        log=lambda number, values: calls.append(("log", number, float(values["number"][0]))),
        evaluate=lambda number, state: calls.append(("evaluate", number)),
        save=lambda state: calls.append(("save", state)),
        grad_norms=lambda state, batch: calls.append(("norms", state, batch)) or {"extra": 1.0},
        on_progress=lambda number, values, speed: calls.append(("tick", number)),
        warn=lambda text: calls.append(("warn", text)),
    )
    tmp["calls"] = calls
    fit(
        hooks,
        start,
        itertools.count(start + 1),
        Plan(start, num_steps, images_per_step=4, every=Every(*every)),
        DivergenceTracker(members),
    )
    return calls


def only(calls, *names):
    return [call for call in calls if call[0] in names]


class TestFit:
    def test_log_then_validate_then_save(self):
        calls = only(run({}, every=(2, 4, 4, 0)), "log", "evaluate", "save")
        assert calls == [
            ("log", 2, 2.0),
            ("log", 4, 4.0),
            ("evaluate", 4),
            ("save", 4),
            ("log", 6, 6.0),
            ("evaluate", 6),
            ("save", 6),
        ]

    def test_zero_means_only_at_the_end(self):
        calls = only(run({}, every=(0, 0, 0, 0)), "log", "evaluate", "save")
        assert calls == [("log", 6, 6.0), ("evaluate", 6), ("save", 6)]

    def test_steps_with_norms_of_gradients_are_logged(self):
        calls = only(run({}, every=(4, 0, 0, 3)), "log")
        assert calls == [("log", 3, 3.0), ("log", 4, 4.0), ("log", 6, 6.0)]

    def test_norms_of_gradients_are_of_the_state_before_the_step(self):
        calls = only(run({}, every=(4, 0, 0, 3)), "norms")
        assert calls == [("norms", 2, 3), ("norms", 5, 6)]

    def test_continues_from_the_start_step(self):
        calls = only(run({}, every=(2, 0, 3, 0), start=3), "log", "save")
        assert calls == [("log", 4, 4.0), ("log", 6, 6.0), ("save", 6)]

    def test_no_steps_left(self):
        assert run({}, every=(1, 1, 1, 0), start=6) == []

    def test_no_checkpoint_after_a_non_finite_value(self):
        record = {}
        with pytest.raises(RunError, match="step 3: student/loss is not finite"):
            run(record, every=(4, 2, 2, 0), bad=[(0, 3)])
        assert only(record["calls"], "log", "evaluate", "save") == [
            ("evaluate", 2),
            ("save", 2),
        ]

    def test_one_diverged_member_does_not_stop_the_others(self):
        calls = run({}, every=(3, 0, 3, 0), members=2, bad=[(1, 2)])
        assert only(calls, "warn") == [("warn", "member 1: step 2: student/loss is not finite")]
        assert only(calls, "save") == [("save", 3), ("save", 6)]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_saves_and_stops(self, number):
        before, record = signal.getsignal(number), {}
        with pytest.raises(Stopped, match="stopped at step 4, which is saved"):
            run(
                record,
                every=(0, 0, 0, 0),
                at_step=lambda step: os.kill(os.getpid(), number) if step == 4 else None,
            )
        assert only(record["calls"], "save", "log") == [("save", 4)]
        assert signal.getsignal(number) == before

    def test_a_signal_at_the_last_step_ends_the_run_as_usual(self):
        calls = run(
            {},
            every=(0, 0, 0, 0),
            at_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 6 else None,
        )
        assert only(calls, "save", "log") == [("log", 6, 6.0), ("save", 6)]
