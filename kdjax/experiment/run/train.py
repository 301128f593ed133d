"""Running: each variant in turn, its members as one program, everything on disk and resumable.

workdir/checkpoints/<variant>/<first>-<last>/<step>/     orbax, the newest few
workdir/checkpoints/<variant>/<first>-<last>/done.json   what these members came to
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.data import example_batch
from kdjax.evaluation import selection
from kdjax.experiment.build.initial_weights import init_detector_heads, init_head, kept
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import workdir
from kdjax.experiment.run.frozen_teacher import attach_frozen_extras
from kdjax.experiment.run.hooks import TrainHooks, score
from kdjax.experiment.run.member_groups import (
    MemberGroup,
    checkpoint_dir,
    finished,
    has_started,
    parts,
)
from kdjax.experiment.run.program import Program, make_program
from kdjax.report.metrics_log import MetricsLog, NullLog
from kdjax.train import checkpoint, loop, multihost, sweep
from kdjax.types import State, UserError, Variables

Say = Callable[[str], None]


class RunResults:
    """What the variants of a run have come to so far, in order: later ones may build on it."""

    def __init__(self, run: Experiment, folder: Path, say: Say) -> None:
        """Begin before the first variant."""
        self.run, self.folder, self.say = run, folder, say
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, dict[str, Variables]] = {}
        self.wanted = {name for v in run.variants for name in v.from_variant.values()}

    def tell(self, variant: Variant, done: Sequence[Mapping[str, Any]]) -> None:
        """Add a finished variant."""
        self.outcomes[variant.name] = merge_groups(self.run, variant, done)
        if variant.name in self.wanted:
            self.weights[variant.name] = self.networks(variant)

    def states(self, variant: Variant) -> list[State]:
        """The last states of a variant's parts, on the host, every role stacked by member."""
        return [
            load_part(self.run, part, self.given(variant, part.members), self.say)
            for part in parts(self.run, variant, self.folder)
        ]

    def networks(self, variant: Variant) -> dict[str, Variables]:
        """What a finished variant trained, read from disk: role -> variables [members, ...]."""
        states = self.states(variant)
        merge = lambda *xs: np.concatenate(xs)  # noqa: E731
        return {
            role: jax.tree.map(merge, *(Variables(s.params[role], s.stats[role]) for s in states))
            for role in variant.players
        }

    def given(self, variant: Variant, members: Sequence[int]) -> dict[str, tuple[Variables, bool]]:
        """Weights from elsewhere: role -> (variables, whether stacked by member)."""
        found = {}
        for role, variables in variant.initial_variables.items():
            if role in variant.new_heads:
                seeds = [int(variant.members[m]["seed"]) for m in members]
                found[role] = (sweep.stack([init_head(variables, seed) for seed in seeds]), True)
            else:
                found[role] = (
                    attach_frozen_extras(self.run, variant, role, variables, self.folder),
                    False,
                )
        for role, weights in variant.backbones.items():
            seeds = [int(variant.members[m]["seed"]) for m in members]
            batch = self.run.prepare_eval(example_batch(self.run.source))
            trees = init_detector_heads(variant.players[role].model, role, weights, seeds, batch)
            found[role] = (sweep.stack(trees), True)
        for role, name in variant.from_variant.items():
            rows = self._rows(variant, members, role, name)
            weights = models.strip_wrappers(self.weights[name][role])
            weights = kept(weights, variant.config["roles"][role]["keep_layers"])
            own = {r: jax.tree.map(lambda x, r=r: x[r], weights) for r in sorted(set(rows))}
            trees = {
                r: attach_frozen_extras(self.run, variant, role, own[r], self.folder) for r in own
            }
            one = len(trees) == 1
            tree = trees[rows[0]] if one else sweep.stack([trees[row] for row in rows])
            found[role] = (tree, not one)
        return found

    def _rows(self, variant: Variant, members: Sequence[int], role: str, name: str) -> list[int]:
        """The chosen members of an earlier variant that have the seeds of these members."""
        outcome = self.outcomes[name]
        by_seed = selection.by_seed(outcome["members"], outcome["chosen"][role])
        seeds = [variant.members[m]["seed"] for m in members]
        for seed in seeds:
            if seed not in by_seed:
                raise UserError(
                    f"config.variants.{variant.name}: roles.{role}.from_variant is {name!r}, "
                    f"which has no good member with seed {seed}; it has {sorted(by_seed)}"
                )
        return [by_seed[seed] for seed in seeds]


def train(run: Experiment, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Train what is left to train, and return the outcomes of all variants.

    Args:
      run: from `build`.
      folder: the workdir, already adopted.
      say: prints one line.

    Returns:
      A list of {"name", "members", "chosen", "bins", "seconds"}, one a variant.

    Raises:
      RunError: a non-finite loss in all members of a program, or a signal.
      UserError: damaged files.
    """
    run.task.check_installed()
    first = multihost.is_first()
    log = MetricsLog(folder, tensorboard=run.config["tensorboard"]) if first else NullLog()
    if first:
        run.task.save_files(run.data.dataset, folder)
    story = RunResults(run, folder, say)
    try:
        written = 0  # bytes of the metrics file that belong to finished parts
        for variant in run.variants:
            done = []
            if not has_started(variant, folder):
                _say_new(variant, say)
            for part in parts(run, variant, folder):
                outcome = finished(part)
                if outcome is None:
                    given = story.given(variant, part.members)
                    outcome = _train_part(run, part, given, log, written, say)
                written = outcome["offset"]
                done.append(outcome)
            story.tell(variant, done)
    finally:
        log.close()
    return list(story.outcomes.values())


def _say_new(variant: Variant, say: Say) -> None:
    for role in variant.new_heads:
        path = variant.config["roles"][role]["checkpoint"]
        say(
            f"{variant.name}: {path} has no head for this task; classifier.weight and "
            f"classifier.bias of {role} are new, drawn by each member's seed"
        )


def load_results(run: Experiment, folder: Path, say: Say) -> RunResults:
    """The story of the finished variants of a workdir, nothing being trained."""
    story = RunResults(run, folder, say)
    for variant in run.variants:
        pieces = parts(run, variant, folder) if has_started(variant, folder) else []
        done = [outcome for part in pieces if (outcome := finished(part)) is not None]
        if not pieces or len(done) < len(pieces):
            break
        story.tell(variant, done)
    return story


def evaluate(run: Experiment, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Score all finished variants again, from their checkpoints; outcomes as `train` gives."""
    story = load_results(run, folder, say)
    found = []
    for variant in run.variants:
        if variant.name not in story.outcomes:
            continue
        done = []
        for part in parts(run, variant, folder):
            given = story.given(variant, part.members)
            program, state = _restored(run, part, given, say)
            old = workdir.read_json(checkpoint_dir(part) / "done.json")
            tracker = loop.DivergenceTracker(len(part.members), old["diverged"])
            again = score(run, variant, part.members, program, state, tracker)
            done.append({**old, **again})
        found.append(merge_groups(run, variant, done))
    return found


def merge_groups(
    run: Experiment, variant: Variant, done: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Put the parts of a variant together and choose on validation."""
    members = [member for outcome in done for member in outcome["members"]]
    pairs = [found.between for found in variant.critics.values()]
    choose = lambda role: selection.choose(members, role, variant.players, run.selection, pairs)  # noqa: E731
    chosen = {role: choose(role) for role in variant.players}
    bins = {
        role: {
            when: {
                name: np.concatenate([np.asarray(o["bins"][role][when][name]) for o in done])
                for name in ("count", "accuracy", "confidence")
            }
            for when in done[0]["bins"][role]
        }
        for role in variant.players
        if role in done[0]["bins"]  # a regression has none
    }
    seconds = sum(outcome["seconds"] for outcome in done)
    return {
        "name": variant.name,
        "members": members,
        "chosen": chosen,
        "bins": bins,
        "seconds": seconds,
        "shown": done[0].get("shown"),
    }


def load_part(run: Experiment, part: MemberGroup, given: Mapping[str, Any], say: Say) -> State:
    """The last state of a part, on the host, every role stacked by member.

    Raises:
      UserError: no good checkpoint.
    """
    program, state = _restored(run, part, given, say)
    state = jax.device_get(state)
    repeat = lambda x: np.repeat(np.asarray(x)[None], len(part.members), axis=0)  # noqa: E731
    params, stats = dict(state.params), dict(state.stats)
    for role, axis in program.axes.params.items():
        if axis is None:
            params[role], stats[role] = jax.tree.map(repeat, (params[role], stats[role]))
    return state._replace(params=params, stats=stats)


def _restored(
    run: Experiment, part: MemberGroup, given: Mapping[str, Any], say: Say
) -> tuple[Program, State]:
    program, state = make_program(run, part.variant, part.members, given)
    manager = checkpoint.open_manager(checkpoint_dir(part), keep=run.config["keep_checkpoints"])
    try:
        found = checkpoint.restore(manager, state, program.method.trains, say)
    finally:
        manager.close()
    if found is None:
        raise UserError(f"{checkpoint_dir(part)} holds no good checkpoint; train first")
    return program, found[0]


def _train_part(
    run: Experiment,
    part: MemberGroup,
    given: Mapping[str, tuple[Variables, bool]],
    log: MetricsLog | NullLog,
    written: int,
    say: Say,
) -> dict[str, Any]:
    started = time.perf_counter()
    program, state = make_program(run, part.variant, part.members, given)
    manager = checkpoint.open_manager(checkpoint_dir(part), keep=run.config["keep_checkpoints"])
    try:
        found = checkpoint.restore(manager, state, program.method.trains, say)
        record = {"offset": written, "diverged": {}, "frozen": _frozen(given, program)}
        if found is not None:
            state, record = found[0], {**record, **found[1]}
            _check_frozen(part, given, program, record)
        log.truncate(record["offset"])
        if found is not None:
            say(f"{part.variant.name}: resumed from step {int(state.step)}")
        tracker = loop.DivergenceTracker(
            len(part.members),
            record["diverged"],
            first=part.members[0],
            covers_all=len(part.members) == len(part.variant.members),
        )
        train_hooks = TrainHooks(
            run, part.variant, part.members, program, log, manager, tracker, record["frozen"]
        )
        state = train_hooks.fit(state)
        outcome = score(run, part.variant, part.members, program, state, tracker)
        train_hooks.test(outcome)
        outcome["diverged"] = {str(k): text for k, text in tracker.diverged.items()}
        outcome["seconds"] = time.perf_counter() - started
        outcome["offset"] = log.offset()
        workdir.write_json(checkpoint_dir(part) / "done.json", outcome)
        return outcome
    except jax.errors.JaxRuntimeError as error:
        multihost.exit_if_peer_lost(error)  # what follows would wait for a process that is gone
        raise
    finally:
        checkpoint.close(manager)


def _frozen(given: Mapping[str, tuple[Variables, bool]], program: Program) -> dict[str, str]:
    return {
        role: checkpoint.digest(variables)
        for role, (variables, _) in given.items()
        if role not in program.method.trains
    }


def _check_frozen(part: MemberGroup, given, program: Program, record: Mapping[str, Any]) -> None:
    for role, found in _frozen(given, program).items():
        if record["frozen"].get(role) != found:
            raise UserError(
                f"roles.{role} of {part.variant.name}: its weights are not those that this run "
                "began with; put the old file back or start in a new workdir"
            )
