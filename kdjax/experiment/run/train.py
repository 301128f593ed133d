"""Training of a run: its variants in order, their members in groups, with checkpoints."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax import models
from kdjax.data import SECOND
from kdjax.errors import UserError
from kdjax.experiment.build.plan import Experiment, InitialWeights, Variant
from kdjax.experiment.run import halving, workdir
from kdjax.experiment.run.hooks import TrainHooks, score
from kdjax.experiment.run.member_groups import (
    MemberGroup,
    all_groups,
    checkpoint_dir,
    has_started,
    member_groups,
    round_stops,
)
from kdjax.experiment.run.program import Program, make_program
from kdjax.experiment.run.results import (
    GroupResult,
    RunResults,
    load_results,
    merge_groups,
    read_group,
    restore_group,
    write_group,
)
from kdjax.report import files, staging
from kdjax.report.files import Path
from kdjax.report.metrics_log import MetricsLog, NullLog
from kdjax.report.results import VariantResult
from kdjax.train import checkpoint, loop, multihost
from kdjax.types import State

Say = Callable[[str], None]


def train(experiment: Experiment, folder: Path, say: Say) -> list[VariantResult]:
    """Train the groups that are not finished, and return the results of all variants.

    Raises:
      RunError: a non-finite loss in all members of a program, or a signal.
      UserError: damaged files.
    """
    experiment.task.check_installed()
    log: MetricsLog | NullLog = NullLog()
    if multihost.is_first():
        log = MetricsLog(folder, tensorboard=experiment.config.tensorboard)
        with staging.local_folder(folder) as local:
            experiment.task.save_files(experiment.data.dataset, local)
            if (second := experiment.data.second) is not None:
                experiment.task.save_files(second, local / SECOND)
    for line in experiment.task.describe_data(experiment.data.dataset):
        say(line)
    results = RunResults(experiment, folder, say)
    try:
        # bytes of the metrics file that belong to finished groups
        offset = 0
        if files.exists(folder / "config.json"):
            offset = workdir.extension_offset(folder)
        for variant in experiment.variants:
            if not has_started(variant, folder):
                _announce_new_heads(variant, say)
            finished = _train_rounds(results, variant, log, offset)
            offset = max(offset, finished[-1].offset)
            results.add(variant, finished)
    finally:
        log.close()
    return list(results.outcomes.values())


def evaluate(
    experiment: Experiment, folder: Path, say: Say, *, best: bool = False
) -> list[VariantResult]:
    """Score all variants again, also those that are not finished.

    Args:
      experiment: the run.
      folder: its workdir.
      say: prints a line.
      best: score the states of the best validations (`keep_best`) instead of the last ones.
    """
    results = load_results(experiment, folder, say)
    finished = list(results.outcomes)
    for variant in experiment.variants:
        if variant.name in finished:
            score_finished(results, variant, best=best)
        else:
            score_unfinished(results, variant, best=best)
    return list(results.outcomes.values())


def score_finished(results: RunResults, variant: Variant, *, best: bool = False) -> None:
    """Replace the results of a finished variant by the scores of its last or best states."""
    scored = _score_groups(results, variant, best=best)
    results.outcomes[variant.name] = merge_groups(results.experiment, variant, scored)


def score_unfinished(results: RunResults, variant: Variant, *, best: bool = False) -> None:
    """Add a stopped variant as of its last checkpoint; one without a checkpoint is left out."""
    if not has_started(variant, results.folder):
        return
    try:
        groups = _score_groups(results, variant, best=best)
    except UserError as error:
        results.say(f"{variant.name} is left out: {error}")
        return
    last = [group for group in groups if group.members[0].dropped is None]
    ended = ", ".join(f"{group.steps:,}" for group in last)
    steps = variant.config.num_steps
    results.say(f"{variant.name} is not finished: its last checkpoint, step {ended} of {steps:,}")
    results.add(variant, groups)


def _score_groups(results: RunResults, variant: Variant, *, best: bool) -> list[GroupResult]:
    """Score the last round as of its last checkpoints; earlier rounds keep their results."""
    groups = all_groups(results.experiment, variant, results.folder)
    scored = []
    for group in groups:
        earlier = read_group(group)
        if group.stop == groups[-1].stop or earlier is None:
            earlier = _score_group(results, group._replace(stop=None), best=best)
        scored.append(earlier)
    return scored


def _score_group(results: RunResults, group: MemberGroup, *, best: bool) -> GroupResult:
    """Score a group as of its last checkpoint, or of its best states."""
    experiment = results.experiment
    weights = results.initial_weights(group, cache=False)
    program, state, record = restore_group(experiment, group, weights, results.say, best=best)
    if best:
        steps = ", ".join(f"{step:,}" for step in record["steps"])
        results.say(f"{group.variant.name}: the best validations were after steps {steps}")
    earlier = read_group(group)
    diverged = record["diverged"] if earlier is None else earlier.diverged
    tracker = loop.DivergenceTracker(
        len(group.members), diverged, numbers=group.members, covers_all=False
    )
    return GroupResult(
        **score(experiment, group, program, state, tracker, results.say)._asdict(),
        diverged={str(row): text for row, text in tracker.diverged.items()},
        seconds=0.0 if earlier is None else earlier.seconds,
        offset=0 if earlier is None else earlier.offset,
        steps=int(state.step),
    )


def _announce_new_heads(variant: Variant, say: Say) -> None:
    for role in variant.new_heads:
        path = variant.config.roles[role].checkpoint
        say(
            f"{variant.name}: {path} has no head for this task; the last layers that {role} lacks "
            "are initialised at random by each member's seed"
        )


def _train_rounds(
    results: RunResults, variant: Variant, log: MetricsLog | NullLog, offset: int
) -> list[GroupResult]:
    """Train a variant, round by round of successive halving; return the results of all groups."""
    experiment, folder = results.experiment, results.folder
    members, previous = range(len(variant.members)), []
    finished: list[GroupResult] = []
    for number, stop in enumerate(round_stops(variant)):
        groups = member_groups(experiment, variant, folder, number, members)
        for group in groups:
            result = read_group(group)
            if result is None:
                result = _train_group(results, group, log, offset, previous)
            offset = max(offset, result.offset)
            finished.append(result)
        if stop is not None:
            before, previous = len(members), groups
            members = halving.survivors(experiment, variant, finished[-len(groups) :])
            if not has_started(variant, folder, number + 1):
                results.say(
                    f"{variant.name}: {len(members)} of {before} members continue from step {stop}"
                )
    return finished


def _train_group(
    results: RunResults,
    group: MemberGroup,
    log: MetricsLog | NullLog,
    offset: int,
    previous: Sequence[MemberGroup],
) -> GroupResult:
    """Train a group from its last checkpoint to the end of its round, and score its members.

    `previous`: the groups of the round before, with whose states it starts.
    """
    started = time.perf_counter()
    experiment, say = results.experiment, results.say
    weights = results.initial_weights(group)
    program, state = make_program(experiment, group, weights)
    keep = experiment.config.keep_checkpoints
    manager = checkpoint.open_manager(checkpoint_dir(group), keep=keep, before_commit=log.publish)
    try:
        restored = checkpoint.restore(manager, state, program.method.trains, say)
        frozen = _frozen_digests(weights, program)
        record = {"offset": offset, "diverged": {}, "frozen": frozen, "seconds": 0.0}
        if restored is not None:
            state, record = restored[0], {**record, **restored[1]}
            _check_frozen(group, weights, frozen, record["frozen"])
        elif previous:
            state, record["diverged"] = halving.continue_round(results, group, state, previous)
        log.truncate(max(offset, record["offset"]))
        if restored is not None:
            say(f"{group.variant.name}: resumed from step {int(state.step)}")
        tracker = loop.DivergenceTracker(
            len(group.members),
            record["diverged"],
            numbers=group.members,
            covers_all=len(group.members) == len(group.variant.members),
        )
        hooks = TrainHooks(experiment, group, program, log, tracker)

        def seconds() -> float:  # of all sessions
            return record["seconds"] + time.perf_counter() - started

        state = hooks.fit(state, _saver(manager, program, log, tracker, frozen, seconds))
        scores = score(experiment, group, program, state, tracker, say)
        if group.stop is None:
            hooks.write_test(scores)
        result = GroupResult(
            **scores._asdict(),
            diverged={str(row): text for row, text in tracker.diverged.items()},
            seconds=seconds(),
            offset=log.offset(),
            steps=int(state.step),
        )
        checkpoint.write_file_hashes(manager)  # waits for the last checkpoint
        log.publish()
        write_group(group, result)
        return result
    except jax.errors.JaxRuntimeError as error:
        multihost.exit_if_peer_lost(error)  # the code below would wait for a process that ended
        raise
    finally:
        checkpoint.close(manager)


def _saver(
    manager: Any,
    program: Program,
    log: MetricsLog | NullLog,
    tracker: loop.DivergenceTracker,
    frozen: Mapping[str, str],
    seconds: Callable[[], float],
) -> Callable[[State], None]:
    """Return a function that writes a checkpoint of a state that is placed on the devices."""

    def save(state: State) -> None:
        record = {
            "offset": log.offset(),
            "diverged": {str(row): text for row, text in tracker.diverged.items()},
            "frozen": dict(frozen),
            "seconds": seconds(),
        }
        plain = program.layout.fetch(state)
        checkpoint.save(manager, plain, program.method.trains, record)

    return save


def _frozen_digests(weights: Mapping[str, InitialWeights], program: Program) -> dict[str, str]:
    """Digest the frozen networks without their cached outputs, whose bits depend on the machine."""
    return {
        role: checkpoint.digest(models.strip_wrappers(initial.variables))
        for role, initial in weights.items()
        if role not in program.method.trains
    }


def _check_frozen(
    group: MemberGroup,
    weights: Mapping[str, InitialWeights],
    frozen: Mapping[str, str],
    stored: Mapping[str, str],
) -> None:
    """Refuse frozen networks of other digests; those of older runs are with cached outputs."""
    for role, digest in frozen.items():
        if stored.get(role) not in (digest, checkpoint.digest(weights[role].variables)):
            raise UserError(
                f"roles.{role} of {group.variant.name}: its weights have changed since this run "
                "began; restore the old file or start in a new workdir"
            )
