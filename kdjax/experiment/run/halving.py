"""Successive halving: the members that continue after a round, and their states."""

from collections.abc import Sequence

import jax
import numpy as np

from kdjax.evaluation import selection
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.results import GroupResult, RunResults, read_group, restore_group
from kdjax.train import checkpoint
from kdjax.types import State


def survivors(
    experiment: Experiment, variant: Variant, groups: Sequence[GroupResult]
) -> tuple[int, ...]:
    """Return the members that continue after a round, from the results of all its groups."""
    members = [member for group in groups for member in group.members]
    share = variant.config.halving.share
    role = selection.deciding_role(variant.players, experiment.selection.role)
    return selection.survivors(members, role, experiment.selection, share)


def continue_round(
    results: RunResults, group: MemberGroup, state: State, previous: Sequence[MemberGroup]
) -> tuple[State, dict[str, str]]:
    """Return the state of a group at the end of the previous round, and its diverged members.

    Args:
      results: of the earlier variants.
      group: its members took part in the previous round, perhaps in several groups.
      state: the initial state of the group; frozen roles, keys and hyperparameters are kept.
      previous: all groups of the previous round, in the order of their members.
    """
    parts, reasons = [], {}
    for earlier in previous:
        rows = [row for row, member in enumerate(earlier.members) if member in group.members]
        if not rows:
            continue
        weights = results.initial_weights(earlier)
        program, stopped, _ = restore_group(results.experiment, earlier, weights, results.say)
        part = checkpoint.trained_part(stopped, program.method.trains)
        arrays = jax.device_get((part.params, part.stats, part.opt))
        parts.append(jax.tree.map(lambda x, rows=rows: x[np.array(rows)], arrays))
        state = state._replace(step=stopped.step)
        outcome = read_group(earlier)
        assert outcome is not None  # the round is finished
        reasons |= {earlier.members[int(row)]: text for row, text in outcome.diverged.items()}
    params, stats, opt = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    diverged = {str(r): reasons[m] for r, m in enumerate(group.members) if m in reasons}
    params, stats = {**state.params, **params}, {**state.stats, **stats}
    return state._replace(params=params, stats=stats, opt=opt), diverged
