"""Results of groups of members (done.json), of variants and of a run.

workdir/checkpoints/<variant>/<first>-<last>/<step>/     orbax checkpoints, the newest few
workdir/checkpoints/<variant>/<first>-<last>/best/       see `best_states`
workdir/checkpoints/<variant>/<first>-<last>/done.json   the results of these members
workdir/checkpoints/<variant>/round-<n>/                 the same of a later round of halving
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

from kdjax import models
from kdjax.data import example_batch
from kdjax.errors import UserError
from kdjax.evaluation import classification, selection
from kdjax.experiment.build.initial_weights import init_detector_heads, init_head, select_layers
from kdjax.experiment.build.plan import Experiment, InitialWeights, Variant
from kdjax.experiment.run import workdir
from kdjax.experiment.run.frozen_teacher import attach_frozen_extras
from kdjax.experiment.run.loss_formula import loss_formula
from kdjax.experiment.run.member_groups import MemberGroup, all_groups, checkpoint_dir, has_started
from kdjax.experiment.run.program import Program, make_program
from kdjax.report import files
from kdjax.report.files import Path
from kdjax.report.results import (
    Choice,
    MemberResult,
    PlayerSummary,
    Reliability,
    VariantResult,
    from_json,
    to_json,
)
from kdjax.train import checkpoint, sweep
from kdjax.types import State, Variables

Say = Callable[[str], None]
Attach = Callable[[str, Variables], Variables]  # of a role and its variables


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """Results of the members that one program trained: the content of done.json.

    `bins`: role -> "before" | "after" -> count, accuracy, confidence [members, bins] of the test
    split; `samples`: split -> role -> samples for the report; `diverged`: row -> description;
    `offset`: bytes of metrics.jsonl when the group had ended; `steps`: those of the run, 0 of older
    ones.
    """

    members: tuple[MemberResult, ...]
    bins: Mapping[str, Any]
    samples: Annotated[Mapping[str, Any], Field(alias="shown")]
    diverged: Mapping[str, str]
    seconds: float
    offset: int
    steps: int = 0


def write_group(group: MemberGroup, result: GroupResult) -> None:
    """Write done.json, which marks the group as finished."""
    workdir.write_json(checkpoint_dir(group) / "done.json", to_json(result))


def read_group(group: MemberGroup) -> GroupResult | None:
    """Read the results of a group at the end of its round or of its variant, or return None."""
    path = checkpoint_dir(group) / "done.json"
    if not files.exists(path):
        return None
    try:
        result = from_json(GroupResult, workdir.read_json(path))
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or remove the workdir") from error
    return result if result.steps in (0, group.last_step) else None


class RunResults:
    """The results of the finished variants, in order; later variants may use their weights."""

    def __init__(self, experiment: Experiment, folder: Path, say: Say) -> None:
        """Start without results."""
        self.experiment, self.folder, self.say = experiment, folder, say
        self.outcomes: dict[str, VariantResult] = {}
        self.trained: dict[str, VariantResult] = {}  # `evaluate` replaces outcomes, not these
        self.weights: dict[str, dict[str, Variables]] = {}
        self.sources = {name for v in experiment.variants for name in v.from_variant.values()}

    def add(self, variant: Variant, groups: Sequence[GroupResult]) -> None:
        """Add a finished variant."""
        outcome = merge_groups(self.experiment, variant, groups)
        self.outcomes[variant.name] = self.trained[variant.name] = outcome
        if variant.name in self.sources:
            self.weights[variant.name] = self.networks(variant)

    def networks(self, variant: Variant, *, best: bool = False) -> dict[str, Variables]:
        """Read the networks of a finished variant from disk: role -> variables [members, ...].

        A member that was dropped has the state of its last step; `best`: those of the best
        validations.
        """
        groups = all_groups(self.experiment, variant, self.folder)
        load = partial(load_group_state, self.experiment, say=self.say, best=best)
        states = [load(group, self.initial_weights(group, cache=False)) for group in groups]
        last = {m: (i, r) for i, group in enumerate(groups) for r, m in enumerate(group.members)}
        places = [last[member] for member in range(len(variant.members))]
        networks = {}
        for role in variant.players:
            trees = [Variables(state.params[role], state.stats[role]) for state in states]
            networks[role] = jax.tree.map(
                lambda *leaves: np.stack([leaves[index][row] for index, row in places]), *trees
            )
        return networks

    def initial_weights(self, group: MemberGroup, cache: bool = True) -> dict[str, InitialWeights]:
        """Return the weights of roles that do not start at random; only training needs `cache`."""
        experiment, variant = self.experiment, group.variant
        seeds = [int(variant.members[member]["seed"]) for member in group.members]
        attach = partial(attach_frozen_extras, experiment, variant, self.folder, cache)
        weights = {}
        for role, variables in variant.initial_variables.items():
            if role in variant.new_heads:
                heads = [init_head(variables, seed) for seed in seeds]
                weights[role] = InitialWeights(sweep.stack(heads), stacked=True)
            else:
                weights[role] = InitialWeights(attach(role, variables), stacked=False)
        for role, backbone in variant.backbones.items():
            batch = experiment.prepare_eval(example_batch(experiment.source))
            model = variant.players[role].model
            trees = init_detector_heads(model, role, backbone, seeds, batch)
            weights[role] = InitialWeights(sweep.stack(trees), stacked=True)
        for role, source in variant.from_variant.items():
            weights[role] = self._weights_of_variant(group, role, source, attach)
        return weights

    def _weights_of_variant(
        self, group: MemberGroup, role: str, source: str, attach: Attach
    ) -> InitialWeights:
        """Return weights of an earlier variant, one row for each of its members that is used."""
        variant = group.variant
        rows = self._source_rows(group, role, source)
        stacked = models.strip_wrappers(self.weights[source][role])
        stacked = select_layers(stacked, variant.config.roles[role].keep_layers)
        trees = {}
        for row in sorted(set(rows)):
            trees[row] = attach(role, jax.tree.map(lambda x, row=row: x[row], stacked))
        if len(trees) == 1:
            return InitialWeights(trees[rows[0]], stacked=False)
        return InitialWeights(sweep.stack([trees[row] for row in rows]), stacked=True)

    def _source_rows(self, group: MemberGroup, role: str, source: str) -> list[int]:
        """Return the chosen members of an earlier variant of the group's seeds, or the only one."""
        variant, outcome = group.variant, self.trained[source]
        by_seed = selection.by_seed(outcome.members, outcome.chosen[role].members)
        seeds = [variant.members[member]["seed"] for member in group.members]
        if len(only := {member.values["seed"] for member in outcome.members}) == 1:
            seeds = [*only] * len(seeds)
        for seed in seeds:
            if seed not in by_seed:
                raise UserError(
                    f"config.variants.{variant.name}: roles.{role}.from_variant is {source!r}, "
                    f"which has no finite member with seed {seed}; it has {sorted(by_seed)}"
                )
        return [by_seed[seed] for seed in seeds]


def load_results(experiment: Experiment, folder: Path, say: Say) -> RunResults:
    """Read the results of the finished variants of a workdir, without training."""
    results = RunResults(experiment, folder, say)
    for variant in experiment.variants:
        if not has_started(variant, folder):
            break
        groups = all_groups(experiment, variant, folder)
        finished = [result for result in map(read_group, groups) if result is not None]
        if len(finished) < len(groups) or groups[-1].stop is not None:
            break
        results.add(variant, finished)
    return results


def merge_groups(
    experiment: Experiment, variant: Variant, groups: Sequence[GroupResult]
) -> VariantResult:
    """Combine the groups of a variant and choose among its members on the validation split.

    A member has the scores of its last round; one that was dropped is not chosen.
    """
    last = {member.member: member for group in groups for member in group.members}
    members = tuple(last[number] for number in sorted(last))
    groups_to_end = [group for group in groups if group.members[0].dropped is None]
    candidates = [member for group in groups_to_end for member in group.members]
    rows = {member.member: row for row, member in enumerate(candidates)}
    pairs = [critic.between for critic in variant.critics.values()]
    chosen, reliability = {}, {}
    for role in variant.players:
        choice = selection.choose(candidates, role, variant.players, experiment.selection, pairs)
        chosen[role] = Choice(**choice._asdict())
        if role in groups_to_end[0].bins:  # regressions have no bins
            bins = [group.bins[role] for group in groups_to_end]
            reliability[role] = _pool(bins, [rows[member] for member in choice.members])
    finite = [group for group in groups_to_end if len(group.diverged) < len(group.members)]
    title = variant.config.title  # a title for all variants would not distinguish them
    return VariantResult(
        name=variant.name,
        title=title if title != experiment.config.title or variant.name == "default" else "",
        roles={role: _summarize_player(variant, role) for role in variant.players},
        members=members,
        chosen=chosen,
        reliability=reliability,
        seconds=sum(group.seconds for group in groups),
        detections=(finite or groups_to_end)[0].samples,
    )


def _pool(groups: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> Reliability:
    """Combine the bins of the chosen members, at these rows, from the bins of every group."""
    pooled = {}
    for when in groups[0]:
        bins = {
            name: np.concatenate([np.asarray(group[when][name], float) for group in groups])
            for name in ("count", "accuracy", "confidence")
        }
        pooled[when] = classification.pool_bins(bins, list(rows))
    return from_json(Reliability, pooled)


def _summarize_player(variant: Variant, role: str) -> PlayerSummary:
    source = None
    if role in variant.from_variant:
        source = f"variant {variant.from_variant[role]}"
    elif role in variant.initial_variables:
        source = f"checkpoint {variant.config.roles[role].checkpoint}"
    return PlayerSummary(
        model=variant.config.roles[role].model.name,
        parameters=variant.parameters[role],
        trains=variant.players[role].trains,
        source=source,
        loss=loss_formula(variant, role) or None,
    )


def load_group_state(
    experiment: Experiment,
    group: MemberGroup,
    weights: Mapping[str, InitialWeights],
    say: Say,
    *,
    best: bool = False,
) -> State:
    """Read the last (or best) state of a group, on the host, every role stacked by member.

    Raises:
      UserError: no readable checkpoint.
    """
    program, state, _ = restore_group(experiment, group, weights, say, best=best)
    state = jax.device_get(state)
    params, stats = dict(state.params), dict(state.stats)
    for role, axis in program.axes.params.items():
        if axis is None:
            params[role], stats[role] = jax.tree.map(
                lambda x: np.repeat(np.asarray(x)[None], len(group.members), axis=0),
                (params[role], stats[role]),
            )
    return state._replace(params=params, stats=stats)


def restore_group(
    experiment: Experiment,
    group: MemberGroup,
    weights: Mapping[str, InitialWeights],
    say: Say,
    *,
    best: bool = False,
) -> tuple[Program, State, Mapping[str, Any]]:
    """Build the program of a group and read its last (or best) state and its checkpoint's record.

    Raises:
      UserError: no readable checkpoint, or none of the group's results.
    """
    folder = checkpoint_dir(group, best=best)
    if best and not files.exists(folder):
        raise UserError(f"{folder.parent} has no best state; train with keep_best=True")
    program, state = make_program(experiment, group, weights)
    keep = experiment.config.keep_checkpoints
    with closing(checkpoint.open_manager(folder, keep=keep)) as manager:
        restored = checkpoint.restore(manager, state, program.method.trains, say)
    if restored is None:
        raise UserError(f"{folder} contains no readable checkpoint; train first")
    done = None if best else read_group(group)
    if done is not None and done.steps not in (0, int(restored[0].step)):
        raise UserError(f"{folder}: step {done.steps} is damaged; restore it, or train anew")
    return program, *restored
