"""Choosing among a sweep's members on the validation split, role by role, seed by seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.distill.methods import Player
from kdjax.types import RunError, UserError

Members = Sequence[Mapping[str, Any]]  # {"member", "values", "diverged", "results"}


class Selection(NamedTuple):
    """The rule by which members are chosen: a metric of a role on the validation split."""

    role: str
    metric: str
    higher_is_better: bool


def make_selection(role: str, metric: str | None, metrics: Mapping[str, bool]) -> Selection:
    """Return the rule that a config asks for.

    Args:
      role: whose metric; where it does not play, each role is chosen by its own.
      metric: one of `metrics`; None for the first.
      metrics: those of the task: name -> whether higher is better.

    Raises:
      UserError: a metric that is not measured on this data.
    """
    metric = next(iter(metrics)) if metric is None else metric
    if metric not in metrics:
        raise UserError(f"select.metric is {metric!r}; there are {', '.join(metrics)}")
    return Selection(role, metric, metrics[metric])


def choose(
    members: Members,
    role: str,
    table: Mapping[str, Player],
    selection: Selection,
    compared: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Pick the swept values with the best validation metric, averaged over seeds.

    A role that neither watches nor is watched ("alone") is chosen by its own metric; players that
    learn together are one choice, by the metric of `selection.role`; `compared` are the pairs that
    critics stand between. Ties go to the lower NLL.
    Values with a diverged member are passed over while there are others.

    Returns:
      {"values": swept values without the seed, "members": their numbers, in seed order}.

    Raises:
      RunError: every choice has diverged.
    """
    alone = _isolated(role, table) and not any(role in pair for pair in compared)
    judge = role if alone or selection.role not in table else selection.role
    sign = -1 if selection.higher_is_better else 1
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for member in members:
        key = tuple((k, v) for k, v in member["values"].items() if k != "seed")
        groups.setdefault(key, []).append(member)

    def rank(group: Members) -> tuple[float, float, float]:
        lost = sum(m["diverged"] is not None for m in group)
        score = _mean(group, judge, selection.metric)
        score = sign * score if math.isfinite(score) else math.inf  # none: last, whatever the sign
        return lost, score, _mean(group, judge, "nll")

    best = min(groups, key=lambda key: rank(groups[key]))
    kept = [m["member"] for m in groups[best] if m["diverged"] is None]
    if not kept:
        raise RunError("every member has diverged; sweep lower learning rates")
    return {"values": dict(best), "members": kept}


def _mean(group: Members, role: str, metric: str) -> float:
    found = []
    for member in group:
        results = member["results"]["validation"]
        value = results.get(f"{role}/{metric}", results.get(metric))
        if value is not None and math.isfinite(value):
            found.append(value)
    return sum(found) / len(found) if found else math.inf


def _isolated(role: str, table: Mapping[str, Player]) -> bool:
    watched = {
        peer for player in table.values() for t in player.terms.values() for peer in t.toward
    }
    watches = any(term.toward for term in table[role].terms.values())
    return role not in watched and not watches


def by_seed(members: Members, chosen: Mapping[str, Any]) -> dict[int, int]:
    """Seed -> number of the chosen member with that seed."""
    return {members[m]["values"]["seed"]: m for m in chosen["members"]}
