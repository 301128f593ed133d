"""Choosing among a sweep's members on the validation split, role by role, seed by seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.distill.methods import Player
from kdjax.types import RunError, UserError

TASK_METRICS = ("f1", "macro_f1", "matthews", "pearson", "spearman", "exact_match")
CLASS_METRICS = (
    "accuracy",
    "agreement",
    "nll",
    "brier",
    "ece",
    "adaptive_ece",
    "classwise_ece",
    "maximum_ce",
    "nll_calibrated",
    "brier_calibrated",
    "ece_calibrated",
)
AVERAGE_PRECISIONS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
HIGHER_IS_BETTER = (
    "accuracy",
    "probe_accuracy",
    "agreement",
    *TASK_METRICS,
    *AVERAGE_PRECISIONS,
)
Members = Sequence[Mapping[str, Any]]  # {"member", "values", "diverged", "results"}


def check(
    select: Mapping[str, str], roles: Sequence[str], metrics: Sequence[str], *, default_role: str
) -> None:
    """Refuse a role that never plays and a metric that does not exist.

    The default role need not play: where it does not, each role is chosen by its own metric.
    `metrics` are those that are measured on this data.

    Raises:
      UserError: naming the key and what there is.
    """
    if select["metric"] not in metrics:
        known = ", ".join(metrics)
        raise UserError(f"select.metric is {select['metric']!r}; there are {known}")
    if select["role"] not in roles and select["role"] != default_role:
        known = ", ".join(dict.fromkeys(roles))
        raise UserError(f"select.role is {select['role']!r}; there are {known}")


def choose(
    members: Members,
    role: str,
    table: Mapping[str, Player],
    select: Mapping[str, str],
    compared: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Pick the swept values with the best validation metric, averaged over seeds.

    A role that neither watches nor is watched ("alone") is chosen by its own metric; players that
    learn together are one choice, by the metric of `select["role"]`; `compared` are the pairs that
    critics stand between. Ties go to the lower NLL.
    Values with a diverged member are passed over while there are others.

    Returns:
      {"values": swept values without the seed, "members": their numbers, in seed order}.

    Raises:
      RunError: every choice has diverged.
    """
    alone = _isolated(role, table) and not any(role in pair for pair in compared)
    judge = role if alone or select["role"] not in table else select["role"]
    metric, sign = select["metric"], -1 if select["metric"] in HIGHER_IS_BETTER else 1
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for member in members:
        key = tuple((k, v) for k, v in member["values"].items() if k != "seed")
        groups.setdefault(key, []).append(member)

    def rank(group: Members) -> tuple[float, float, float]:
        lost = sum(m["diverged"] is not None for m in group)
        score = _mean(group, judge, metric)
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
