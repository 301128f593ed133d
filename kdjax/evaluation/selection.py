"""The choice among a sweep's members, by role, on the validation split."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kdjax.distill import Player
from kdjax.errors import RunError, UserError


class Member(Protocol):
    """Scores of one member of a sweep; `report.results.MemberResult` is one."""

    @property
    def member(self) -> int:
        """The number of the member."""
        ...

    @property
    def values(self) -> Mapping[str, Any]:
        """The swept values, including "seed"."""
        ...

    @property
    def diverged(self) -> str | None:
        """The step and metric that was not finite, if any."""
        ...

    @property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """Metric -> value of each split; NaN or None where it is not finite."""
        ...


class Choice(NamedTuple):
    """Swept values without the seed, the members that have them in order, and the judge.

    `judge` is the role by whose metric they were chosen.
    """

    values: Mapping[str, Any]
    members: tuple[int, ...]
    judge: str


class Selection(NamedTuple):
    """The rule by which members are chosen: a metric of a role on the validation split."""

    role: str
    metric: str
    higher_is_better: bool


def make_selection(role: str, metric: str | None, metrics: Mapping[str, bool]) -> Selection:
    """Return the rule of a config; `metric` None means the first of the task's `metrics`.

    Raises:
      UserError: a metric that is not measured on this data.
    """
    metric = next(iter(metrics)) if metric is None else metric
    if metric not in metrics:
        raise UserError(f"select.metric is {metric!r}; there are {', '.join(metrics)}")
    return Selection(role, metric, metrics[metric])


def choose(
    members: Sequence[Member],
    role: str,
    players: Mapping[str, Player],
    selection: Selection,
    compared: Sequence[tuple[str, str]] = (),
) -> Choice:
    """Pick the swept values with the best validation metric, averaged over seeds.

    A role without a `toward` that no other role names either is chosen by its own metric. Players
    that learn together share one choice, by the metric of `deciding_role`; `compared` are the pairs
    of roles that critics compare. Of equal values the lower NLL is chosen. Values with
    a diverged member, or with a metric that is not finite (the calibration error of a detector
    without detections), are chosen only if there are no others.

    Raises:
      RunError: all members of all values have diverged.
    """
    isolated = _isolated(role, players) and not any(role in pair for pair in compared)
    judge = role if isolated else deciding_role(players, selection.role)
    groups = _by_values(members)
    best = min(groups, key=lambda key: _rank(groups[key], judge, selection))
    finite = tuple(member.member for member in groups[best] if member.diverged is None)
    if not finite:
        raise RunError("every member has diverged; sweep lower learning rates")
    return Choice(dict(best), finite, judge)


def deciding_role(players: Mapping[str, Player], role: str) -> str:
    """Return the role of a selection, or the first one that learns if it does not learn here."""
    if role in players and players[role].trains:
        return role
    return next(name for name, player in players.items() if player.trains)


def survivors(
    members: Sequence[Member], role: str, selection: Selection, share: float
) -> tuple[int, ...]:
    """Return the members that continue after a round of successive halving, in order.

    The swept values are ranked by the mean over seeds of the metric of `role`, as in `choose`. The
    best `share` of them continue, rounded up, each with all its seeds.

    Raises:
      UserError: the metric is not among the scores of the role.
    """
    check_scored(members, role, selection)
    groups = _by_values(members)
    ranked = sorted(groups.values(), key=lambda group: _rank(group, role, selection))
    count = math.ceil(round(share * len(ranked), 9))  # .1 x 30 is above 3 by a rounding
    return tuple(sorted(member.member for group in ranked[:count] for member in group))


def check_scored(members: Sequence[Member], role: str, selection: Selection) -> None:
    """Refuse a metric that is not among the validation scores of a role."""
    scores = members[0].results["validation"]
    if f"{role}/{selection.metric}" not in scores and selection.metric not in scores:
        known = sorted(name.removeprefix(f"{role}/") for name in scores if f"{role}/" in name)
        raise UserError(
            f"halving needs select.metric, but {selection.metric!r} is not computed for {role}; "
            f"there are {', '.join(known)}"
        )


def _by_values(members: Sequence[Member]) -> dict[tuple, list[Member]]:
    """Group members by their swept values without the seed."""
    groups: dict[tuple, list[Member]] = {}
    for member in members:
        key = tuple((k, v) for k, v in member.values.items() if k != "seed")
        groups.setdefault(key, []).append(member)
    return groups


def _rank(group: Sequence[Member], judge: str, selection: Selection) -> tuple[float, float, float]:
    """Return a key by which better swept values come first."""
    sign = -1 if selection.higher_is_better else 1
    scores = _finite(group, judge, selection.metric)
    num_unusable = sum(
        member.diverged is not None or member.member not in scores for member in group
    )
    score = sign * _mean(scores) if scores else math.inf  # no score: last, for either sign
    return num_unusable, score, _mean(_finite(group, judge, "nll"))


def _finite(group: Sequence[Member], role: str, metric: str) -> dict[int, float]:
    """Return member -> validation metric, for the members whose metric is finite."""
    scores = {member.member: member.results["validation"] for member in group}
    values = {number: s.get(f"{role}/{metric}", s.get(metric)) for number, s in scores.items()}
    return {n: value for n, value in values.items() if value is not None and math.isfinite(value)}


def _mean(scores: Mapping[int, float]) -> float:
    return sum(scores.values()) / len(scores) if scores else math.inf


def _isolated(role: str, players: Mapping[str, Player]) -> bool:
    watched = {
        peer for player in players.values() for t in player.terms.values() for peer in t.toward
    }
    watches = any(term.toward for term in players[role].terms.values())
    return role not in watched and not watches


def by_seed(members: Sequence[Member], chosen: Sequence[int]) -> dict[int, int]:
    """Return seed -> number of the chosen member with that seed."""
    return {members[m].values["seed"]: m for m in chosen}
