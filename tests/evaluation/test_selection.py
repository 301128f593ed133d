"""Selection of the reported member of a sweep."""

import dataclasses

import pytest

from kdjax.distill import Player
from kdjax.distill.terms import TERM_SPECS, make_term
from kdjax.errors import RunError, UserError
from kdjax.evaluation import classification, selection
from kdjax.report.results import MemberResult

RATE = "roles.*.optimizer.learning_rate"
SELECT = selection.Selection("student", "accuracy", higher_is_better=True)
CE = make_term(TERM_SPECS["ce"]())


def player(*toward):
    terms = {f"kl_{p}": make_term(TERM_SPECS["forward_kl"](), toward=(p,)) for p in toward}
    return Player(None, {"ce": CE, **terms})


ALONE = {"teacher": player(), "student": player()}
OFFLINE = {"teacher": Player(None, {}), "student": player("teacher")}
MUTUAL = {"teacher": player("student"), "student": player("teacher")}


def member(number, seed, rate, *, diverged=None, agreement=0.5, **scores):
    """Return a member; `scores` are student=(accuracy, nll), teacher=(accuracy, nll)."""
    validation = {"agreement": agreement}
    for role, (accuracy, nll) in scores.items():
        validation |= {f"{role}/accuracy": accuracy, f"{role}/nll": nll}
    return MemberResult(
        member=number,
        values={"seed": seed, RATE: rate},
        diverged=diverged,
        results={"validation": validation},
    )


def change(row, *, diverged=None, accuracy=0.5):
    """Return the member, diverged or with another accuracy of the student."""
    validation = {**row.results["validation"], "student/accuracy": accuracy}
    return dataclasses.replace(row, diverged=diverged, results={"validation": validation})


def grid(*accuracies):
    """Return members of two seeds for each rate, with the student's accuracies of both seeds."""
    return [
        member(2 * i + s, s, 0.1 * (i + 1), student=(value, 1.0), teacher=(1 - value, 1.0))
        for i, pair in enumerate(accuracies)
        for s, value in enumerate(pair)
    ]


def test_the_best_mean_over_seeds_wins():
    members = grid((0.9, 0.1), (0.7, 0.6), (0.2, 0.2))
    choice = selection.choose(members, "student", MUTUAL, SELECT)
    assert choice == selection.Choice({RATE: 0.2}, (2, 3), "student")
    assert selection.by_seed(members, choice.members) == {0: 2, 1: 3}


def test_a_lower_error_is_better():
    members = [
        member(0, 0, 0.1, student=(0.9, 2.0), teacher=(0.0, 0.0)),
        member(1, 0, 0.2, student=(0.8, 1.0), teacher=(0.0, 0.0)),
    ]
    choose = selection.choose
    assert choose(members, "student", MUTUAL, SELECT).members == (0,)
    assert choose(
        members, "student", MUTUAL, SELECT._replace(metric="nll", higher_is_better=False)
    ).members == (1,)


def test_a_metric_of_both_roles():
    scores = {"student": (0.5, 1.0), "teacher": (0.5, 1.0)}
    members = [member(i, 0, i, agreement=a, **scores) for i, a in enumerate((0.3, 0.9, 0.4))]
    select = SELECT._replace(metric="agreement")
    assert selection.choose(members, "student", MUTUAL, select).members == (1,)


def test_ties_go_to_the_lower_nll_then_to_the_first():
    members = [
        member(i, 0, i, student=(0.9, nll), teacher=(0.0, 0.0))
        for i, nll in enumerate((2.0, 1.0, 1.0))
    ]
    assert selection.choose(members, "student", MUTUAL, SELECT).members == (1,)


@pytest.mark.parametrize(
    ("table", "chosen"),
    [
        (ALONE, {"student": (0,), "teacher": (1,)}),  # each role by its own metric
        (OFFLINE, {"student": (0,), "teacher": (0,)}),
        (MUTUAL, {"student": (0,), "teacher": (0,)}),
    ],
    ids=["alone", "offline", "mutual"],
)
def test_roles_trained_together_are_selected_together(table, chosen):
    members = [
        member(0, 0, 0.1, student=(0.9, 1.0), teacher=(0.2, 1.0)),
        member(1, 0, 0.2, student=(0.8, 1.0), teacher=(0.7, 1.0)),
    ]
    choices = {r: selection.choose(members, r, table, SELECT).members for r in table}
    assert choices == chosen


def test_the_teacher_may_select():
    members = grid((0.9, 0.9), (0.1, 0.1))
    select = SELECT._replace(role="teacher")
    assert selection.choose(members, "student", MUTUAL, select).members == (2, 3)


@pytest.mark.parametrize("missing", ["student", "frozen"])
def test_without_the_selecting_role_the_first_that_learns_selects(missing):
    frozen = player()._replace(terms={})
    table = {"frozen": frozen, "first": player("second"), "second": player("first", "frozen")}
    members = [
        member(0, 0, 0.1, first=(0.9, 1.0), second=(0.1, 1.0)),
        member(1, 0, 0.2, first=(0.8, 1.0), second=(0.2, 1.0)),
    ]
    select = SELECT._replace(role=missing)
    for role in table:
        assert selection.choose(members, role, table, select).members == (0,)


def test_values_with_a_diverged_member_are_not_selected():
    members = grid((0.99, 0.99), (0.5, 0.5))
    members[1] = change(members[1], diverged="step 3: student/ce is not finite", accuracy=0.99)
    assert selection.choose(members, "student", MUTUAL, SELECT).members == (2, 3)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_values_whose_metric_is_not_finite_are_never_the_best(nothing):
    for lower, scores in ((True, (0.9, 0.9)), (False, (0.1, 0.1))):
        select = SELECT._replace(higher_is_better=not lower)
        for seeds in ((0,), (0, 1)):  # of one seed, which leaves a mean of the other, or of both
            members = grid((0.5, 0.5), scores)
            for seed in seeds:
                members[seed] = change(members[seed], accuracy=nothing)
            choice = selection.choose(members, "student", MUTUAL, select)
            assert choice.members == (2, 3), (lower, seeds)


def test_if_all_values_have_a_diverged_member_the_others_count():
    members = grid((0.9, 0.9), (0.5, 0.5))
    members[1] = change(members[1], diverged="step 3", accuracy=None)
    members[3] = change(members[3], diverged="step 3")
    choice = selection.choose(members, "student", MUTUAL, SELECT)
    assert choice.members == (0,)
    assert selection.by_seed(members, choice.members) == {0: 0}


def test_nothing_is_selected_if_all_diverged():
    members = [change(row, diverged="step 1") for row in grid((0.9, 0.9))]
    with pytest.raises(RunError, match="lower learning rates"):
        selection.choose(members, "student", MUTUAL, SELECT)


@pytest.mark.parametrize("missing", [float("nan"), None])
def test_a_missing_score_is_never_the_best(missing):
    members = grid((0.5, 0.5), (0.4, 0.4))
    members[:2] = [change(row, accuracy=missing) for row in members[:2]]
    assert selection.choose(members, "student", MUTUAL, SELECT).members == (2, 3)


def test_the_description_of_the_rule():
    metrics = classification.METRICS
    for metric, higher in metrics.items():
        rule = selection.make_selection("teacher", metric, metrics)
        assert rule == selection.Selection("teacher", metric, higher)
    assert selection.make_selection("teacher", None, metrics).metric == "accuracy"
    with pytest.raises(UserError, match=r"select\.metric is 'loss'; there are accuracy, "):
        selection.make_selection("a", "loss", metrics)


def test_the_judge_of_a_choice_is_named():
    members = grid((0.9, 0.9), (0.1, 0.1))
    assert selection.choose(members, "teacher", MUTUAL, SELECT).judge == "student"
    own = {"student": player(), "teacher": player()}
    assert selection.choose(members, "teacher", own, SELECT).judge == "teacher"


class TestSurvivors:
    MEMBERS = grid((0.9, 0.1), (0.7, 0.6), (0.2, 0.2), (0.5, 0.3))  # means .5, .65, .2, .4

    @pytest.mark.parametrize(
        ("share", "expected"),
        [(0.25, (2, 3)), (0.5, (0, 1, 2, 3)), (0.51, (0, 1, 2, 3, 6, 7)), (0.01, (2, 3))],
    )
    def test_the_best_share_of_the_values_continues_with_all_seeds(self, share, expected):
        assert selection.survivors(self.MEMBERS, "student", SELECT, share) == expected

    def test_a_share_is_rounded_up_from_its_exact_value(self):
        members = grid(*((i / 100, i / 100) for i in range(10)))
        assert len(selection.survivors(members, "student", SELECT, 0.7)) == 2 * 7
        assert len(selection.survivors(members, "student", SELECT, 0.1 * 3)) == 2 * 3

    def test_a_diverged_member_drops_its_values_first(self):
        members = [change(self.MEMBERS[2], diverged="step 3", accuracy=0.99)]
        members = [*self.MEMBERS[:2], *members, *self.MEMBERS[3:]]
        assert selection.survivors(members, "student", SELECT, 0.75) == (0, 1, 4, 5, 6, 7)

    def test_a_lower_error_is_better(self):
        select = SELECT._replace(metric="accuracy", higher_is_better=False)
        assert selection.survivors(self.MEMBERS, "student", select, 0.25) == (4, 5)

    def test_a_metric_of_both_roles_and_one_that_is_not_computed(self):
        select = SELECT._replace(metric="agreement")
        assert selection.survivors(self.MEMBERS, "student", select, 0.25) == (0, 1)  # a tie
        select = SELECT._replace(metric="brier")
        with pytest.raises(UserError, match="'brier' is not computed for student; there are acc"):
            selection.survivors(self.MEMBERS, "student", select, 0.5)
